"""The smallest configuration of the model that has everything: one head, one layer an encoder, 2 x 4 patches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from reserve.config import ModelConfig

TINY = ModelConfig(
    hidden_size=64,
    vocab_size=20,
    vit_num_layers=1,
    vit_patch_size=4,
    output_grid=(2, 4),
    audio_num_layers=1,
    span_num_layers=1,
    joint_num_layers=1,
)


def tiny(**changes: Any) -> ModelConfig:
    """TINY with some settings changed."""
    return replace(TINY, **changes)
