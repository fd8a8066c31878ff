"""Windows by name, in float64."""

from __future__ import annotations

from collections.abc import Callable

import torch


def _hann(length: int, periodic: bool) -> torch.Tensor:
    return torch.hann_window(length, periodic=periodic, dtype=torch.float64, device="cpu")


def _hamming(length: int, periodic: bool) -> torch.Tensor:
    return torch.hamming_window(length, periodic=periodic, dtype=torch.float64, device="cpu")


WINDOWS: dict[str, Callable[[int], torch.Tensor]] = {
    "hann": lambda length: _hann(length, periodic=True),
    "hann_symmetric": lambda length: _hann(length, periodic=False),
    "hamming": lambda length: _hamming(length, periodic=True),
    "hamming_symmetric": lambda length: _hamming(length, periodic=False),
    # Kaldi's own: the symmetric Hann window to the power of 0.85, which unlike Hamming's is 0 at the ends.
    "povey": lambda length: _hann(length, periodic=False).pow(0.85),
    "rectangular": lambda length: torch.ones(length, dtype=torch.float64, device="cpu"),
}
"""Name -> the window of a length, float64 on the CPU. Periodic windows are those of torch.stft and librosa, symmetric
ones those of Kaldi and of MERLOT Reserve."""

GIVEN = "given"
"""The name of a window that the caller passes as a tensor."""
