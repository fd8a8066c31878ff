"""log_mel_spectrogram: from samples to the audio encoder's input (SPEC 2)."""

from __future__ import annotations

import torch

from reserve_kernels.backends import Backend, choose, register, runs_anywhere
from reserve_kernels.checks import FLOATING, check_tensor
from reserve_kernels.log_mel.reference import LogMelSettings, log_mel_reference, log_mel_reference_backward

__all__ = ["log_mel_spectrogram"]

OP = "log_mel_spectrogram"
register(OP, [Backend("reference", runs_anywhere)])


def log_mel_spectrogram(
    waveform: torch.Tensor,
    *,
    playback_speed: int = 1,
    pad_mode: str = "reflect",
    sample_rate: float = 22050,
    n_fft: int = 1536,
    hop_length: int = 588,
    n_mels: int = 64,
    f_min: float = 20.0,
    f_max: float = 11025.0,
    offset: float = 0.1,
    backend: str = "auto",
) -> torch.Tensor:
    """Log-mel spectrogram of MERLOT Reserve: `log(mel + offset) - log(offset)`, so that silence is 0 (SPEC 2).

    Frames are centred; the window is the symmetric Hann window; the spectrum is the power |X|^2; the mel bands are
    Slaney's with Slaney's area normalisation, as librosa's defaults.

    Args:
        waveform: [..., samples], float32 (float16 and bfloat16 are computed in float32, float64 in float64); any
            strides; at least one sample, and enough that an odd `n_fft` fills one frame.
        playback_speed: multiplies `n_fft` and `hop_length`: audio played s times too fast gives the same frames.
        pad_mode: "reflect" (librosa < 0.10 and the released checkpoints) or "constant" (zeros; librosa >= 0.10).
        sample_rate: Hz.
        n_fft: samples of the window and of the Fourier transform, before `playback_speed`.
        hop_length: samples between frames, before `playback_speed`.
        n_mels: mel bands between `f_min` and `f_max`, Hz.
        offset: added to the mel power before the logarithm.
        backend: "auto" or a name from `reserve_kernels.backends()`.

    Returns:
        [..., 1 + samples // (hop_length * playback_speed), n_mels] in the dtype of `waveform` (for an even `n_fft`).
        NaN and infinite samples make the frames that hold them NaN.

    Raises:
        TypeError: `waveform` is not a floating-point tensor.
        ValueError: an argument is out of range, named with what is allowed.
        RuntimeError: the named backend cannot run here.

    The gradient is exact; the spectrum is computed again for it. There is no double backward.
    """
    check_tensor("waveform", waveform, FLOATING)
    if waveform.dim() == 0 or waveform.shape[-1] == 0:
        raise ValueError(f"waveform must be [..., samples] with at least one sample; got shape {tuple(waveform.shape)}")
    if pad_mode not in ("reflect", "constant"):
        raise ValueError(f"pad_mode must be 'reflect' or 'constant'; got {pad_mode!r}")
    for name, value in [("playback_speed", playback_speed), ("hop_length", hop_length), ("n_mels", n_mels)]:
        if int(value) != value or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1; got {value!r}")
    if int(n_fft) != n_fft or n_fft < 2:
        raise ValueError(f"n_fft must be an integer of at least 2; got {n_fft!r}")
    if not 0 <= f_min < f_max <= sample_rate / 2:
        raise ValueError(
            f"f_min and f_max must satisfy 0 <= f_min < f_max <= sample_rate / 2 = {sample_rate / 2}; "
            f"got f_min={f_min}, f_max={f_max}"
        )
    if not offset > 0:
        raise ValueError(f"offset must be positive; got {offset}")
    choose(OP, backend, waveform.device, waveform.dtype)
    return torch.ops.reserve_kernels.log_mel_spectrogram(
        waveform,
        pad_mode,
        float(sample_rate),
        int(n_fft) * int(playback_speed),
        int(hop_length) * int(playback_speed),
        int(n_mels),
        float(f_min),
        float(f_max),
        float(offset),
    )


def _compute_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


@torch.library.custom_op("reserve_kernels::log_mel_spectrogram", mutates_args=())
def _log_mel(
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
    x = waveform.to(_compute_dtype(waveform.dtype))
    settings = LogMelSettings(pad_mode, sample_rate, n_fft, hop_length, n_mels, f_min, f_max, offset)
    return log_mel_reference(x, settings).to(waveform.dtype).contiguous()


@_log_mel.register_fake
def _(waveform, pad_mode, sample_rate, n_fft, hop_length, n_mels, f_min, f_max, offset):
    settings = LogMelSettings(pad_mode, sample_rate, n_fft, hop_length, n_mels, f_min, f_max, offset)
    return waveform.new_empty((*waveform.shape[:-1], settings.frames(waveform.shape[-1]), n_mels))


@torch.library.custom_op("reserve_kernels::log_mel_spectrogram_backward", mutates_args=())
def _log_mel_backward(
    grad: torch.Tensor,
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
    dtype = _compute_dtype(waveform.dtype)
    settings = LogMelSettings(pad_mode, sample_rate, n_fft, hop_length, n_mels, f_min, f_max, offset)
    return log_mel_reference_backward(grad.to(dtype), waveform.to(dtype), settings).to(waveform.dtype).contiguous()


@_log_mel_backward.register_fake
def _(grad, waveform, pad_mode, sample_rate, n_fft, hop_length, n_mels, f_min, f_max, offset):
    return torch.empty_like(waveform, memory_format=torch.contiguous_format)


def _setup_context(ctx, inputs, output):
    waveform, *ctx.settings = inputs
    ctx.save_for_backward(waveform)


def _backward(ctx, grad):
    (waveform,) = ctx.saved_tensors
    grad_waveform = torch.ops.reserve_kernels.log_mel_spectrogram_backward(grad, waveform, *ctx.settings)
    return grad_waveform, *[None] * len(ctx.settings)


_log_mel.register_autograd(_backward, setup_context=_setup_context)
