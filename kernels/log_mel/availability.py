"""The back ends of log_mel_spectrogram, where each can run and with which parameters, and why the others cannot."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from reserve_kernels import native
from reserve_kernels.backends import Backend, Backends, below_ampere, runs_anywhere
from reserve_kernels.log_mel.native import log_mel_native, numbers_of
from reserve_kernels.log_mel.reference import log_mel_rows
from reserve_kernels.log_mel.settings import LogMelSettings

MAX_N_FFT = 8192
MAX_CUDA_BANDS = 1024


class Forward(Protocol):
    """(waveform, settings, offsets, max_samples) -> rows in `out_dtype`, with a last column of `append` if not None."""

    def __call__(
        self,
        waveform: torch.Tensor,
        settings: LogMelSettings,
        offsets: torch.Tensor | None,
        max_samples: int,
        *,
        out_dtype: torch.dtype,
        append: float | None,
        window: torch.Tensor | None,
    ) -> torch.Tensor: ...


def _supports_all(settings: LogMelSettings, device: torch.device) -> str | None:
    return None


@dataclass(frozen=True)
class LogMelBackend(Backend):
    """A back end of log_mel_spectrogram. All share the backward pass of the reference."""

    forward: Forward
    unsupported: Callable[[LogMelSettings, torch.device], str | None] = _supports_all
    """Why it cannot run with these parameters on a device on which it is available; None if it can."""


def cpu_unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """None if the native CPU code runs."""
    if device.type != "cpu":
        return "it runs on the CPU only"
    if dtype == torch.float64:
        return "it computes in float32"
    return native.cpu_unavailable()


def cuda_unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """None if the CUDA kernel runs."""
    if device.type != "cuda":
        return "it runs on a CUDA GPU only"
    if dtype == torch.float64:
        return "it computes in float32"
    missing = native.cuda_unavailable()
    if missing is not None:
        return missing
    return below_ampere(device)


def cpu_unsupported(settings: LogMelSettings, device: torch.device) -> str | None:
    """None if the native CPU code has a transform for these parameters."""
    return _without_transform(settings.n_fft)


@functools.lru_cache(maxsize=256)
def _without_transform(n_fft: int) -> str | None:
    rest = n_fft
    for factor in (2, 3, 5):
        while rest % factor == 0:
            rest //= factor
    if n_fft <= MAX_N_FFT and rest == 1:
        return None
    return (
        f"n_fft * playback_speed must be at most {MAX_N_FFT} and have no other prime factors than 2, 3 and 5; "
        f"got {n_fft}"
    )


def cuda_unsupported(settings: LogMelSettings, device: torch.device) -> str | None:
    """None if the CUDA kernel has these parameters, and a block of it fits into the shared memory of `device`."""
    return not_fused_on_cuda(settings) or _too_large(settings, device)


def not_fused_on_cuda(settings: LogMelSettings) -> str | None:
    """None if the CUDA kernel has these parameters, on any device."""
    unsupported = cpu_unsupported(settings, torch.device("cpu"))
    if unsupported is not None:
        return unsupported
    if settings.n_mels > MAX_CUDA_BANDS:
        return f"n_mels must be at most {MAX_CUDA_BANDS}; got {settings.n_mels}"
    return None


def _too_large(settings: LogMelSettings, device: torch.device) -> str | None:
    needed = native.library().log_mel_cuda_shared_bytes(numbers_of(settings, torch.float32))
    available = torch.cuda.get_device_properties(device).shared_memory_per_block_optin  # type: ignore[attr-defined]
    if needed <= available:
        return None
    return f"these parameters need {needed} bytes of shared memory a block; this device has {available}"


BACKENDS = Backends(
    "log_mel_spectrogram",
    LogMelBackend("cuda", cuda_unavailable, log_mel_native, cuda_unsupported),
    LogMelBackend("native", cpu_unavailable, log_mel_native, cpu_unsupported),
    LogMelBackend("reference", runs_anywhere, log_mel_rows),
)
