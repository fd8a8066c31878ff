"""Where each token stands: coordinates, and the rotary angles they give (SPEC 5)."""

from __future__ import annotations

import math

import torch

ANGLES = 16
MAX_FREQUENCY = 10.0
MAX_SEGMENT = 16.0
MAX_TOKEN = 1024.0


def rotary_angles(coordinates: torch.Tensor) -> torch.Tensor:
    """Coordinates [..., axes] -> float32 angles [..., 16] in radians, axis-major; `axes` divides 16."""
    axes = coordinates.shape[-1]
    frequencies = torch.logspace(
        0.0, math.log2(MAX_FREQUENCY / 2), ANGLES // axes, base=2.0, dtype=torch.float32, device=coordinates.device
    )
    return (coordinates.float()[..., None] * frequencies * math.pi).flatten(-2)


def centred_coordinates(length: int) -> torch.Tensor:
    """[-length // 2 ... -1] then [1 ... length - length // 2], float32 [length]: 0 is skipped."""
    half = length // 2
    return torch.cat((torch.arange(-half, 0), torch.arange(1, length - half + 1))).float()


def grid_coordinates(height: int, width: int) -> torch.Tensor:
    """Centred (h, w) of a grid, row-major, times 1 / (max(height, width) + 1): float32 [height * width, 2]."""
    scale = 1.0 / (max(height, width) + 1.0)
    h, w = centred_coordinates(height) * scale, centred_coordinates(width) * scale
    return torch.stack(torch.meshgrid(h, w, indexing="ij"), dim=-1).reshape(height * width, 2)


def with_cls(coordinates: torch.Tensor) -> torch.Tensor:
    """[length, axes] -> [1 + length, axes]: CLS stands at 0 on every axis."""
    return torch.cat((torch.zeros_like(coordinates[:1]), coordinates))
