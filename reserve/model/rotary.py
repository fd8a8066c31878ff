"""Rotary angles from coordinates (SPEC 5)."""

from __future__ import annotations

import math

import torch

ANGLES = 16
MAX_FREQUENCY = 10.0


def rotary_angles(coordinates: torch.Tensor, model_dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Coordinates [..., axes] -> angles [..., 16] in radians, axis-major; `axes` divides 16.

    float64 for a model in float64, float32 otherwise: half precision is too coarse for positions.
    """
    dtype = torch.float64 if model_dtype == torch.float64 else torch.float32
    axes = coordinates.shape[-1]
    frequencies = torch.logspace(
        0.0, math.log2(MAX_FREQUENCY / 2), ANGLES // axes, base=2.0, dtype=dtype, device=coordinates.device
    )
    return (coordinates.to(dtype)[..., None] * frequencies * math.pi).flatten(-2)
