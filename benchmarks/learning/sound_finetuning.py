"""An audio encoder and a linear head on it, trained together to name sounds."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.learning.sound_probes import encoded
from benchmarks.learning.sound_sets import Sounds
from reserve.model.encoders import AudioEncoder

RATES = (3e-4, 1e-3, 3e-3)
"""Peaks of the learning rate, of which the best on a held-out part of the training clips is taken."""
BATCH_SIZE = 32
STEPS = 200
WARMUP = 0.1
"""Share of the steps in which the learning rate rises; then it falls linearly to zero."""


def train(encoder: AudioEncoder, sounds: Sounds, clips: np.ndarray, rate: float, seed: int) -> nn.ModuleList:
    """A copy of the encoder and a new head, trained on some clips."""
    torch.manual_seed(seed)
    hidden = encoder.embedding.out_features
    model = nn.ModuleList([copy.deepcopy(encoder), nn.Linear(2 * hidden, sounds.classes)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (WARMUP * STEPS), (STEPS - step) / ((1 - WARMUP) * STEPS))
    )
    labels = torch.from_numpy(sounds.labels)
    drawn = torch.from_numpy(clips)
    order = torch.cat([drawn[torch.randperm(len(drawn))] for _ in range(STEPS * BATCH_SIZE // len(drawn) + 1)])
    for batch in order.split(BATCH_SIZE)[:STEPS]:
        loss = F.cross_entropy(_logits(model, sounds.windows[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def _logits(model: nn.ModuleList, windows: torch.Tensor) -> torch.Tensor:
    return model[1](encoded(model[0], windows))  # type: ignore[arg-type]


@torch.no_grad()
def is_right(model: nn.ModuleList, sounds: Sounds, clips: np.ndarray) -> np.ndarray:
    """Whether the model is right about each of some clips: bool."""
    return _logits(model, sounds.windows[clips]).argmax(-1).numpy() == sounds.labels[clips]


def finetune(encoders: list[AudioEncoder], sounds: Sounds) -> np.ndarray:
    """Whether a finetuned encoder is right about each clip, bool [encoders, n], trained on the parts that it is not in.

    Encoder i is trained with seed i. The first one decides the learning rate of each rotation, for all: it is trained
    on the parts to train on but the last, and tested on that.
    """
    right = np.zeros((len(encoders), len(sounds.labels)), dtype=bool)
    for clips, test in sounds.rotations():
        last = sounds.part[clips] == sounds.part[clips].max()
        tried = {
            rate: is_right(train(encoders[0], sounds, clips[~last], rate, 0), sounds, clips[last]).mean()
            for rate in RATES
        }
        best = max(RATES, key=lambda rate: tried[rate])
        for seed, encoder in enumerate(encoders):
            right[seed, test] = is_right(train(encoder, sounds, clips, best, seed), sounds, test)
    return right
