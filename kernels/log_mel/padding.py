"""Which sample a position before or after the ends of a clip repeats."""

from __future__ import annotations

import torch

PAD_MODES = ("reflect", "constant", "replicate", "circular", "symmetric")
"""NumPy's reflect, constant (zeros), edge, wrap and symmetric; the first four are torch's names. Kaldi pads
symmetrically."""


def source_of(position: torch.Tensor, length: torch.Tensor | int, pad_mode: str) -> torch.Tensor:
    """The index of the sample that each integer `position` of an endlessly padded clip repeats; -1 for a zero.

    `length` broadcasts against `position`; where it is 0, the result is a number that means nothing.
    """
    if pad_mode == "constant":
        return torch.where((position >= 0) & (position < length), position, -1)
    if pad_mode == "replicate":
        return torch.minimum(position.clamp_min(0), _as_tensor(length, position) - 1)
    if pad_mode == "circular":
        return position.remainder(_at_least_one(length))
    if pad_mode == "symmetric":
        folded = position.remainder(_at_least_one(2 * length))
        return torch.minimum(folded, 2 * length - 1 - folded)
    # "reflect": the end samples are not repeated. A single sample is its own reflection.
    period = _at_least_one(2 * (length - 1))
    folded = position.remainder(period)
    return torch.minimum(folded, period - folded)


def _as_tensor(length: torch.Tensor | int, like: torch.Tensor) -> torch.Tensor:
    # Filled on the device: copying a number to it would make the host wait.
    return length if isinstance(length, torch.Tensor) else torch.full((), length, dtype=like.dtype, device=like.device)


def _at_least_one(number: torch.Tensor | int) -> torch.Tensor | int:
    return number.clamp_min(1) if isinstance(number, torch.Tensor) else max(number, 1)
