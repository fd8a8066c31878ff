"""The inputs of a forward pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from reserve.batch.movable import Movable
from reserve.batch.packing import PackedSequences, PackedSpans


@dataclass
class ModelInputs(Movable):
    """Frames, sounds and packed token sequences of a batch.

    `images` [..., height, width, 3], uint8 or floating in [0, 1]; `audio_clips` [..., 60, 65], floating, None without
    sound; `joint`, the joint encoder's sequences, whose `image_index` and `audio_index` count frames and clips over the
    flattened leading axes; `spans`, the text spans to encode, or None.
    """

    images: torch.Tensor
    audio_clips: torch.Tensor | None
    joint: PackedSequences
    spans: PackedSpans | None

    def __len__(self) -> int:
        return len(self.images)
