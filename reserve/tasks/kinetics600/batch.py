"""Clips as a batch: for each view a sequence of its sound and MASK, beside its frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from reserve.batch.inputs import ModelInputs
from reserve.batch.packing import pack_joint
from reserve.batch.streams import JointStream
from reserve.batch.vocabulary import AUDIOSPAN, MASK, PAD
from reserve.config import ModelConfig
from reserve.model.finetuned import FinetunedReserve
from reserve.tasks.choices import mask_rows
from reserve.tasks.stored_sound import SUBSEGMENTS


@dataclass(slots=True)
class Example:
    """A clip in V views of S segments: `images` float32 [V, S, height, width, 3], `audio_clips` float32
    [V, S, 3, 60, 65] or None without sound, and its class, -1 if unknown. `is_readable` is False for a stand-in of a
    clip whose file is damaged."""

    images: np.ndarray
    audio_clips: np.ndarray | None
    label: int
    is_readable: bool = True


@dataclass
class ClipBatch(ModelInputs):
    """Clips for the model: `images` [B, V, S, height, width, 3]; `audio_clips` [clips with sound, V, S, 3, 60, 65],
    None if no clip has sound; `rows` int64 [B, V] of the MASKs; `labels` int64 [B]; `is_readable` bool [B]."""

    rows: torch.Tensor
    labels: torch.Tensor
    is_readable: torch.Tensor


def collate(examples: Sequence[Example], model: ModelConfig) -> ClipBatch:
    """A batch of clips with equally many views. Without any sound, the audio encoder is not run."""
    views, segments = examples[0].images.shape[:2]
    stream = _stream(examples, views, segments, model.audio_token_length)
    packed = pack_joint(
        [stream],
        subsegments=segments * SUBSEGMENTS,
        audio_tokens=model.audio_token_length,
        pooled_grid=model.pooled_grid,
    )
    sounds = [example.audio_clips for example in examples if example.audio_clips is not None]
    return ClipBatch(
        images=torch.from_numpy(np.stack([example.images for example in examples])),
        audio_clips=torch.from_numpy(np.stack(sounds)) if sounds else None,
        joint=packed,
        spans=None,
        rows=torch.from_numpy(mask_rows(stream.ids, packed.rows[stream.name]).reshape(-1, views)),
        labels=torch.tensor([example.label for example in examples], dtype=torch.int64),
        is_readable=torch.tensor([example.is_readable for example in examples]),
    )


def _stream(examples: Sequence[Example], views: int, segments: int, vectors: int) -> JointStream:
    """A sequence for each view. AUDIOSPANs have the segment of their sound, MASK the last one."""
    per_segment = SUBSEGMENTS * vectors
    sounds = segments * per_segment
    position = np.arange(sounds + 1)
    heard = np.repeat([example.audio_clips is not None for example in examples], views)
    sequences = len(heard)
    ids = np.full((sequences, sounds + 1), PAD, np.int64)
    ids[heard] = [*[AUDIOSPAN] * sounds, MASK]
    ids[~heard, 0] = MASK
    segment = np.broadcast_to(np.minimum(position // per_segment, segments - 1), ids.shape)
    return JointStream(
        name="views",
        ids=ids,
        audio_ptr=np.where(ids == AUDIOSPAN, position // vectors, -1),
        segment=np.where(ids == MASK, segments - 1, segment),
        # Sounds are counted over the views that have some.
        example=np.maximum(np.cumsum(heard) - 1, 0),
        images=np.arange(sequences * segments).reshape(sequences, segments),
    )


def class_scores(model: FinetunedReserve, batch: ClipBatch) -> torch.Tensor:
    """The logits of the classes: float32 [B, V, classes]."""
    return model.scores(batch, batch.rows.flatten()).unflatten(0, batch.rows.shape)
