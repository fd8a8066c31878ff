"""The differentiable op of log_mel_spectrogram, registered with PyTorch."""

from __future__ import annotations

import functools
import inspect
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import torch

from reserve_kernels.log_mel.arguments import settings_of
from reserve_kernels.log_mel.availability import BACKENDS
from reserve_kernels.log_mel.filters import count_empty_bands
from reserve_kernels.log_mel.presets import PRESETS
from reserve_kernels.log_mel.reference import compute_dtype, log_mel_reference_backward
from reserve_kernels.log_mel.settings import LogMelSettings
from reserve_kernels.precision import without_autocast
from reserve_kernels.transforms import is_plain, refuse_double_backward

_NOT_THE_CALLER = tuple(f"{folder}{os.sep}" for folder in (Path(__file__).parents[1], Path(torch.__file__).parent))
"""Where the frames between a user's call and the op are."""


def _check_offset_values(waveform: torch.Tensor, offsets: torch.Tensor | None) -> None:
    """Validates offsets on the CPU; on a GPU the host would wait for them."""
    if offsets is None or offsets.device.type != "cpu":
        return
    if int(offsets[0]) < 0 or int(offsets[-1]) > waveform.shape[-1] or bool((offsets.diff() < 0).any()):
        raise ValueError(
            f"offsets must not decrease and lie from 0 to the {waveform.shape[-1]} samples of waveform; got {offsets}"
        )


@functools.cache
def _banks_of_presets() -> frozenset[tuple[float | int | str, ...]]:
    return frozenset(settings_of(preset, {})[0].bank for preset in PRESETS)


@functools.lru_cache(maxsize=256)
def _empty_bands(settings: LogMelSettings) -> int:
    """How many bands are always 0, unless they are a preset's own, which are what they are."""
    return 0 if settings.bank in _banks_of_presets() else count_empty_bands(*settings.bank)


def _warn_of_empty_bands(settings: LogMelSettings) -> None:
    """Called by the op, since torch.compile traces no warnings. The warning points to the first line outside of it."""
    empty = _empty_bands(settings)
    if not empty:
        return
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_code.co_filename.startswith(_NOT_THE_CALLER):
        frame, level = frame.f_back, level + 1
    warnings.warn(
        f"log_mel_spectrogram: {empty} of the n_mels={settings.n_mels} bands from {settings.f_min} to "
        f"{settings.f_max} Hz hold no frequency of the transform and are always 0, with n_fft * playback_speed = "
        f"{settings.n_fft} at sample_rate={settings.sample_rate}; use fewer bands or a longer window",
        UserWarning,
        stacklevel=level,
    )


class Call(NamedTuple):
    """What a call has besides samples and settings, in the op's order; log_mel_spectrogram describes it."""

    window: torch.Tensor | None
    offsets: torch.Tensor | None
    max_samples: int
    append: float | None
    """The value of a last column; None for no column."""
    out_dtype: torch.dtype
    backend: str


@without_autocast
def compute(waveform: torch.Tensor, settings: LogMelSettings, call: Call) -> torch.Tensor:
    """The op without a gradient."""
    window, offsets, max_samples, append, out_dtype, backend = call
    _check_offset_values(waveform, offsets)
    _warn_of_empty_bands(settings)
    # Here rather than in the caller, because a compiler does not trace this.
    chosen = BACKENDS.choose(
        backend, waveform.device, waveform.dtype, lambda other: other.unsupported(settings, waveform.device)
    )
    return chosen.forward(waveform, settings, offsets, max_samples, out_dtype=out_dtype, append=append, window=window)


_unpacked = functools.lru_cache(maxsize=256)(LogMelSettings.unpacked)
"""For eager calls: a compiler's integers can be symbols, which have no hash."""


@torch.library.custom_op("reserve_kernels::log_mel_spectrogram", mutates_args=())
def log_mel(
    waveform: torch.Tensor,
    integers: list[int],
    numbers: list[float],
    names: str,
    window: torch.Tensor | None,
    offsets: torch.Tensor | None,
    max_samples: int,
    append: float | None,
    out_dtype: torch.dtype,
    backend: str,
) -> torch.Tensor:
    """`integers`, `numbers` and `names` are LogMelSettings.packed()."""
    settings = _unpacked(tuple(integers), tuple(numbers), names)
    return compute(waveform, settings, Call(window, offsets, max_samples, append, out_dtype, backend))


def spectrogram(waveform: torch.Tensor, settings: LogMelSettings, call: Call) -> torch.Tensor:
    """The op, past the dispatcher where that changes nothing."""
    if is_plain(waveform, call.window, call.offsets) and not (waveform.requires_grad and torch.is_grad_enabled()):
        return compute(waveform, settings, call)
    return log_mel(waveform, *settings.packed(), *call)


@log_mel.register_fake
def _(waveform, integers, numbers, names, window, offsets, max_samples, append, out_dtype, backend):
    settings = LogMelSettings.unpacked(integers, numbers, names)
    shape = settings.out_shape(waveform.shape, offsets, max_samples, columns=int(append is not None))
    return waveform.new_empty(shape, dtype=out_dtype)


@torch.library.custom_op("reserve_kernels::log_mel_spectrogram_backward", mutates_args=())
@without_autocast
def log_mel_backward(
    grad: torch.Tensor,
    waveform: torch.Tensor,
    window: torch.Tensor | None,
    offsets: torch.Tensor | None,
    integers: list[int],
    numbers: list[float],
    names: str,
    max_samples: int,
) -> torch.Tensor:
    dtype = compute_dtype(waveform.dtype)
    settings = LogMelSettings.unpacked(integers, numbers, names)
    if not settings.bands_first:
        grad = grad[..., : settings.n_mels]
    grad_waveform = log_mel_reference_backward(
        grad.to(dtype), waveform.to(dtype), settings, offsets, max_samples, window=window
    )
    return grad_waveform.to(waveform.dtype).contiguous()


@log_mel_backward.register_fake
def _(grad, waveform, *settings):
    return torch.empty_like(waveform, memory_format=torch.contiguous_format)


def _setup_context(ctx, inputs, output):
    waveform, *ctx.settings, window, offsets, ctx.max_samples, _append, _out_dtype, _backend = inputs
    ctx.save_for_backward(waveform, window, offsets)


def _backward(ctx, grad):
    grad_waveform = torch.ops.reserve_kernels.log_mel_spectrogram_backward(
        grad, *ctx.saved_tensors, *ctx.settings, ctx.max_samples
    )
    return grad_waveform, *[None] * 9


log_mel.register_autograd(_backward, setup_context=_setup_context)
log_mel_backward.register_autograd(refuse_double_backward("log_mel_spectrogram"))
