"""Where each token stands: coordinates, and the rotary angles they give (SPEC 5)."""

from __future__ import annotations

import math

import torch

ANGLES = 16
MAX_FREQUENCY = 10.0
MAX_SEGMENT = 16.0
MAX_TOKEN = 1024.0


def rotary_angles(coordinates: torch.Tensor, model_dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Coordinates [..., axes] -> angles [..., 16] in radians, axis-major; `axes` divides 16.

    float32, or float64 for a model in float64: half precision is too coarse for a position.
    """
    dtype = torch.float64 if model_dtype == torch.float64 else torch.float32
    axes = coordinates.shape[-1]
    frequencies = torch.logspace(
        0.0, math.log2(MAX_FREQUENCY / 2), ANGLES // axes, base=2.0, dtype=dtype, device=coordinates.device
    )
    return (coordinates.to(dtype)[..., None] * frequencies * math.pi).flatten(-2)


def centred_coordinates(length: int) -> torch.Tensor:
    """[-length // 2 ... -1] then [1 ... length - length // 2], float32 [length]: 0 is skipped."""
    half = length // 2
    return torch.cat((torch.arange(-half, 0), torch.arange(1, length - half + 1))).float()


def grid_coordinates(height: int, width: int) -> torch.Tensor:
    """Centred (h, w) of a grid, row-major, over max(height, width) + 1: float32 [height * width, 2]."""
    h, w = (centred_coordinates(length) / (max(height, width) + 1) for length in (height, width))
    return torch.stack(torch.meshgrid(h, w, indexing="ij"), dim=-1).reshape(height * width, 2)


def with_cls(coordinates: torch.Tensor) -> torch.Tensor:
    """[length, axes] -> [1 + length, axes]: CLS stands at 0 on every axis."""
    return torch.cat((torch.zeros_like(coordinates[:1]), coordinates))
