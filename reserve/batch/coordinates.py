"""Token coordinates, from which the rotary angles are computed (SPEC 5)."""

from __future__ import annotations

import numpy as np
import torch

MAX_SEGMENT = 16.0
MAX_TOKEN = 1024.0
CPU = torch.device("cpu")


def centred_coordinates(length: int, device: torch.device = CPU) -> torch.Tensor:
    """float32 [length]: -(length // 2) to -1, then 1 to length - length // 2. There is no 0."""
    half = length // 2
    below, above = torch.arange(-half, 0, device=device), torch.arange(1, length - half + 1, device=device)
    return torch.cat((below, above)).float()


def grid_coordinates(height: int, width: int, device: torch.device = CPU) -> torch.Tensor:
    """float32 [height * width, 2]: centred (h, w) in row-major order, divided by max(height, width) + 1."""
    h, w = (centred_coordinates(length, device) / (max(height, width) + 1) for length in (height, width))
    return torch.stack(torch.meshgrid(h, w, indexing="ij"), dim=-1).reshape(height * width, 2)


def grid_coordinates_array(height: int, width: int) -> np.ndarray:
    """`grid_coordinates` as an array, which has values even under FakeTensorMode."""
    h, w = (
        np.concatenate((np.arange(-(length // 2), 0), np.arange(1, length - length // 2 + 1))).astype(np.float32)
        / np.float32(max(height, width) + 1)
        for length in (height, width)
    )
    return np.stack(np.meshgrid(h, w, indexing="ij"), axis=-1).reshape(height * width, 2)


def with_cls(coordinates: torch.Tensor) -> torch.Tensor:
    """Prepends CLS at 0 on every axis: [length, axes] -> [1 + length, axes]."""
    return torch.cat((torch.zeros_like(coordinates[:1]), coordinates))
