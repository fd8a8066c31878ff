"""What log_mel_spectrogram means, in plain PyTorch: exact in float64, and differentiable by autograd."""

from __future__ import annotations

import functools
import math

import torch

# Slaney's scale: linear below 1 kHz at 200/3 Hz a mel, logarithmic above with 27 steps to a factor of 6.4.
_HZ_PER_MEL = 200.0 / 3.0
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _HZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27.0


def hz_to_mel(frequency: float) -> float:
    """Slaney mel of a frequency in Hz."""
    if frequency < _BREAK_HZ:
        return frequency / _HZ_PER_MEL
    return _BREAK_MEL + math.log(frequency / _BREAK_HZ) / _LOG_STEP


def mel_to_hz(mel: torch.Tensor) -> torch.Tensor:
    """Frequencies in Hz of Slaney mels."""
    return torch.where(mel < _BREAK_MEL, mel * _HZ_PER_MEL, _BREAK_HZ * torch.exp(_LOG_STEP * (mel - _BREAK_MEL)))


@functools.lru_cache(maxsize=32)
def mel_filterbank(sample_rate: float, n_fft: int, n_mels: int, f_min: float, f_max: float) -> torch.Tensor:
    """Triangular Slaney filters with Slaney's area normalisation (SPEC 2), float64 [n_mels, n_fft // 2 + 1], on the CPU."""
    edges = mel_to_hz(torch.linspace(hz_to_mel(f_min), hz_to_mel(f_max), n_mels + 2, dtype=torch.float64))
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * (sample_rate / n_fft)
    width = edges.diff()
    rising = (bins - edges[:-2, None]) / width[:-1, None]
    falling = (edges[2:, None] - bins) / width[1:, None]
    triangles = torch.minimum(rising, falling).clamp_min(0.0)
    return triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None]


def reflect_index(samples: int, pad: int, device: torch.device) -> torch.Tensor:
    """Indices [samples + 2 pad] that pad by reflection about the end samples, as often as the padding needs."""
    position = torch.arange(-pad, samples + pad, device=device)
    if samples == 1:
        return torch.zeros_like(position)
    period = 2 * (samples - 1)
    folded = position.remainder(period)
    return torch.minimum(folded, period - folded)


def log_mel_reference(
    waveform: torch.Tensor,
    pad_mode: str,
    sample_rate: float,
    n_fft: int,
    hop_length: int,
    n_mels: int,
    f_min: float,
    f_max: float,
    offset: float,
) -> torch.Tensor:
    """`log(mel + offset) - log(offset)` of the power spectrum, [..., samples] -> [..., frames, n_mels], in the dtype given.

    `n_fft` and `hop_length` are the actual ones, after playback speed.
    """
    *batch, samples = waveform.shape
    pad = n_fft // 2
    if pad_mode == "reflect":
        padded = waveform[..., reflect_index(samples, pad, waveform.device)]
    else:
        padded = torch.nn.functional.pad(waveform, (pad, pad))
    # Computed in double whatever the dtype, so that a float32 window is the rounded true one.
    window = torch.hann_window(n_fft, periodic=False, dtype=torch.float64, device=waveform.device).to(waveform.dtype)
    filters = mel_filterbank(sample_rate, n_fft, n_mels, f_min, f_max).to(waveform.device, waveform.dtype)
    frames = padded.unfold(-1, n_fft, hop_length)
    spectrum = torch.fft.rfft(frames * window)
    power = spectrum.real.square() + spectrum.imag.square()
    mel = power @ filters.T
    return torch.log(mel + offset) - math.log(offset)
