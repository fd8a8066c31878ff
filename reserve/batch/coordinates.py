"""Where each token stands: the coordinates that the rotary angles are computed from (SPEC 5)."""

from __future__ import annotations

import torch

MAX_SEGMENT = 16.0
MAX_TOKEN = 1024.0


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
