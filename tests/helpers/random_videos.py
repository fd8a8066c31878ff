"""Random arguments of embed_video, and their embedding by the restatement."""

from __future__ import annotations

import torch

from reserve.batch.vocabulary import AUDIOSPAN, MASK, PAD
from reserve.config import ModelConfig
from tests.helpers.plain_model import PlainModel

LENGTH, PADDING = 19, 2
"""Tokens per video, and how many of them are padding at the end."""


def random_video(
    config: ModelConfig, segments: int, grid: tuple[int, int], *, videos: int = 2, dtype: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    """Images on `grid`, audio clips, and tokens of all kinds."""
    generator = torch.Generator().manual_seed(segments)
    height, width = (side * config.vit_patch_size for side in grid)
    tokens = torch.randint(10, config.vocab_size, (videos, LENGTH), generator=generator)
    tokens[:, 3:9] = AUDIOSPAN
    tokens[:, LENGTH // 2] = MASK
    tokens[:, -PADDING:] = PAD
    return {
        "images": torch.rand(videos, segments, height, width, 3, generator=generator, dtype=dtype),
        "audio_clips": torch.randn(videos, 3 * segments, 60, 65, generator=generator, dtype=dtype),
        "tokens": tokens,
        "subsegments": torch.randint(0, 3 * segments, (videos, LENGTH), generator=generator).sort(1).values,
    }


def restated(plain: PlainModel, arguments: dict[str, torch.Tensor]) -> torch.Tensor:
    """embed_video by the restatement, which must be configured for the grid of the images. Arbitrary at padding."""
    out = plain.joint(
        arguments["tokens"],
        arguments["subsegments"] // 3,
        sounds=torch.stack([plain.audio(clips)[1] for clips in arguments["audio_clips"]]),
        audio_ptr=arguments["subsegments"],
        frames=torch.stack([plain.vision(images)[1] for images in arguments["images"]]),
    )
    return out / torch.sqrt((out**2).sum(-1, keepdim=True) + 1e-5)
