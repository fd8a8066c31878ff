"""One run of the table of docs/scaling.md, on this rank: `torchrun -m benchmarks.scaling.train FOLDER SETTINGS`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from reserve.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from reserve.tasks.pretrain.random_examples import RandomPretrain
from reserve.train.fit import fit

STEPS, SAVED_AT, BATCH, EXAMPLES = 20, 10, 16, 20
DATA = DataConfig(
    num_segments=4, num_segment_groups=2, lang_seq_len=40, seq_len=64, text_span_budget=4, num_text_spans_to_include=10
)
"""All spans are predicted: a choice among those of a device's share would depend on the number of devices."""
MODEL = ModelConfig(
    hidden_size=64,
    vocab_size=50,
    vit_num_layers=2,
    vit_patch_size=4,
    output_grid=(2, 4),
    audio_num_layers=2,
    audio_patch_size=5,
    span_num_layers=1,
    joint_num_layers=2,
    init_scale=3.0,
)


def configuration(settings: dict[str, Any]) -> Config:
    """A run of STEPS steps whose loss falls, with a checkpoint at SAVED_AT; `settings` are those of train."""
    own: dict[str, Any] = {"precision": "float32", "compile": "none", "device": "cpu", "num_workers": 0, "log_every": 1}
    train = TrainConfig(batch_size=BATCH, checkpoint_every=SAVED_AT, keep_checkpoints=2)
    return Config(
        data=DATA,
        model=MODEL,
        optimizer=OptimizerConfig(learning_rate=2e-3, num_train_steps=STEPS, num_warmup_steps=1),
        train=replace(train, **(own | settings)),
    )


def main(folder: str, settings: str) -> None:
    torch.set_num_threads(1)
    config = configuration(json.loads(settings))
    fit(RandomPretrain(data=config.data, model=config.model, examples=EXAMPLES), Path(folder), config)


if __name__ == "__main__":
    main(*sys.argv[1:])
