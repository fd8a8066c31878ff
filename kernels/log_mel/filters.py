"""Mel scales and triangular filterbanks, exact in float64."""

from __future__ import annotations

import functools
import math

import torch

SCALES = ("slaney", "htk", "kaldi")
"""`slaney`: librosa's default, with triangles that are linear in Hz. `htk`: 2595 log10(1 + f / 700), linear in Hz, as
in librosa and torchaudio. `kaldi`: the same mels with triangles that are linear in mels, as in Kaldi and VGGish."""
NORMS = ("slaney", "none")
"""`slaney`: each triangle is divided by half its width in Hz. `none`: its peak is 1."""

# Slaney's scale: linear below 1 kHz at 200/3 Hz a mel, logarithmic above with 27 steps to a factor of 6.4.
_HZ_PER_MEL = 200.0 / 3.0
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _HZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27.0
# HTK's: 2595 log10(1 + f / 700), which is 1127 ln(1 + f / 700) but for the fifth digit. The factor cancels out.
_HTK_FACTOR = 2595.0 / math.log(10.0)
_HTK_HZ = 700.0


def hz_to_mel(frequency: float, scale: str = "slaney") -> float:
    """Mel of a frequency in Hz."""
    if scale != "slaney":
        return _HTK_FACTOR * math.log1p(frequency / _HTK_HZ)
    if frequency < _BREAK_HZ:
        return frequency / _HZ_PER_MEL
    return _BREAK_MEL + math.log(frequency / _BREAK_HZ) / _LOG_STEP


def mel_to_hz(mel: torch.Tensor, scale: str = "slaney") -> torch.Tensor:
    """Frequencies in Hz of mels."""
    if scale != "slaney":
        return _HTK_HZ * torch.expm1(mel / _HTK_FACTOR)
    return torch.where(mel < _BREAK_MEL, mel * _HZ_PER_MEL, _BREAK_HZ * torch.exp(_LOG_STEP * (mel - _BREAK_MEL)))


@functools.lru_cache(maxsize=32)
def mel_filterbank(
    sample_rate: float,
    n_fft: int,
    n_mels: int,
    f_min: float,
    f_max: float,
    mel_scale: str = "slaney",
    mel_norm: str = "slaney",
) -> torch.Tensor:
    """Triangular filters between edges that are evenly spaced in mels: float64 [n_mels, n_fft // 2 + 1] on the CPU.

    `mel_scale` is one of SCALES, `mel_norm` one of NORMS; the defaults are those of SPEC 2.
    """
    # The result is cached: it must not depend on the default device of the first call.
    low, high = hz_to_mel(f_min, mel_scale), hz_to_mel(f_max, mel_scale)
    mels = torch.linspace(low, high, n_mels + 2, dtype=torch.float64, device="cpu")
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64, device="cpu") * (sample_rate / n_fft)
    hertz = mel_to_hz(mels, mel_scale)
    edges = hertz
    if mel_scale == "kaldi":
        edges, bins = mels, _HTK_FACTOR * torch.log1p(bins / _HTK_HZ)
    width = edges.diff()
    rising = (bins - edges[:-2, None]) / width[:-1, None]
    falling = (edges[2:, None] - bins) / width[1:, None]
    triangles = torch.minimum(rising, falling).clamp_min(0.0)
    if mel_norm == "none":
        return triangles
    return triangles * (2.0 / (hertz[2:] - hertz[:-2]))[:, None]


@functools.lru_cache(maxsize=32)
def count_empty_bands(*bank: float | int | str) -> int:
    """How many filters of `mel_filterbank(*bank)` lie between two bins of the transform and so are zero."""
    return int((mel_filterbank(*bank) == 0).all(1).sum())
