"""log_mel_spectrogram: from audio samples to the audio encoder's input (SPEC 2)."""

from __future__ import annotations

import dataclasses

import torch

from reserve_kernels.checks import FLOATING, check_integer, check_real, check_same_device, check_tensor
from reserve_kernels.log_mel.ops import log_mel
from reserve_kernels.log_mel.reference import LogMelSettings
from reserve_kernels.transforms import refuse_transforms

__all__ = ["log_mel_spectrogram"]

MAX_INT32 = 2**31 - 1
"""The C interface's integers have 32 bits."""
MIN_OFFSET, MAX_OFFSET = 1e-30, 1e30


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
    offsets: torch.Tensor | None = None,
    max_samples: int | None = None,
    append_speed: bool = False,
    out_dtype: torch.dtype | None = None,
    backend: str = "auto",
) -> torch.Tensor:
    """Log-mel spectrogram of MERLOT Reserve: `log(mel + offset) - log(offset)`, which is 0 for silence (SPEC 2).

    Frames are centred, the window is the symmetric Hann window, the spectrum is the power |X|^2, and the mel bands are
    Slaney's with Slaney's area normalisation, librosa's defaults.

    Args:
        waveform: [..., samples], float32 (float16 and bfloat16 are computed in float32, float64 in float64); any
            strides; at least one sample, or with `offsets` any number.
        playback_speed: multiplies `n_fft` and `hop_length`: a clip s times as long has as many frames, as if it were
            played s times as fast.
        pad_mode: half a window is padded at both ends: "reflect" (librosa < 0.10 and the released checkpoints), to and
            fro where a clip is shorter, or "constant" (zeros; librosa >= 0.10).
        sample_rate: Hz.
        n_fft: samples of the window and of the Fourier transform, before `playback_speed`.
        hop_length: samples between frames, before `playback_speed`; with more than `n_fft`, frames skip samples.
        n_mels: mel bands between `f_min` and `f_max`, Hz. Bands that lie between two frequencies of the transform are
            always 0; a UserWarning counts them.
        offset: added to the mel power before the logarithm; from 1e-30 to 1e30.
        offsets: int32 or int64 [clips + 1]. `waveform` is then [samples], clips of any length one after another; clip c
            is samples offsets[c] to offsets[c + 1]. Values must not decrease and must lie within the waveform. A GPU
            does not validate them, since the host would wait. Empty clips have no frames.
        max_samples: with `offsets`, the length of the longest clip, or an upper bound; longer clips lose their last
            frames.
        append_speed: appends a column that holds `playback_speed`, as the audio encoder takes it (SPEC 1).
        out_dtype: float32, bfloat16, float16 or float64; by default that of `waveform`. Everything is computed in
            float32 (in float64 for a float64 waveform) and rounded once.
        backend: "auto" or a name from `reserve_kernels.backends()`. "native" (CPU) and "cuda" support the default n_fft
            at playback speeds 1, 2 and 3, any bands and any hop length. "cuda" needs an even hop length, compute
            capability 8.0 and as much shared memory as the parameters take. "auto" runs "reference" for anything else.

    Returns:
        [..., 1 + samples // (hop_length * playback_speed), n_mels] (for an even `n_fft`). With `offsets`: [clips,
        frames of max_samples samples, n_mels], where frames beyond a clip's own are 0.
        NaN and infinite samples make the frames that hold them NaN.

    Raises:
        TypeError: an argument has the wrong type; a float is not an integer.
        ValueError: an argument is out of range; the message names it and what is allowed.
        RuntimeError: the named backend cannot run here; a CUDA graph is being captured at the first call; or a double
            backward, which is not implemented.
        NotImplementedError: under vmap, forward-mode differentiation or torch.func.grad and its relatives.

    Before a CUDA graph can capture it, it must have run once with the same parameters, with a backward pass if the
    graph has one. The backward pass computes the spectrum again.
    """
    check_tensor("waveform", waveform, FLOATING)
    if waveform.dim() == 0 or (waveform.shape[-1] == 0 and offsets is None):
        raise ValueError(f"waveform must be [..., samples] with at least one sample; got shape {tuple(waveform.shape)}")
    if pad_mode not in ("reflect", "constant"):
        raise ValueError(f"pad_mode must be 'reflect' or 'constant'; got {pad_mode!r}")
    for name, number, least in [
        ("playback_speed", playback_speed, 1),
        ("n_fft", n_fft, 2),
        ("hop_length", hop_length, 1),
        ("n_mels", n_mels, 1),
    ]:
        check_integer(name, number, least, MAX_INT32)
    for name, number in [("n_fft", n_fft), ("hop_length", hop_length)]:
        if number * playback_speed > MAX_INT32:
            raise ValueError(
                f"{name} * playback_speed must be at most {MAX_INT32}; "
                f"got {name}={number}, playback_speed={playback_speed}"
            )
    for name, value in [("sample_rate", sample_rate), ("f_min", f_min), ("f_max", f_max), ("offset", offset)]:
        check_real(name, value)
    if not 0 <= f_min < f_max <= sample_rate / 2:
        raise ValueError(
            f"f_min and f_max must satisfy 0 <= f_min < f_max <= sample_rate / 2 = {sample_rate / 2}; "
            f"got f_min={f_min}, f_max={f_max}"
        )
    if not MIN_OFFSET <= offset <= MAX_OFFSET:
        raise ValueError(f"offset must be from {MIN_OFFSET} to {MAX_OFFSET}; got {offset}")
    if out_dtype is not None and out_dtype not in FLOATING:
        raise TypeError(f"out_dtype must be a floating-point dtype of 16 to 64 bits; got {out_dtype}")
    _check_offsets(waveform, offsets, max_samples)
    refuse_transforms("log_mel_spectrogram", waveform, offsets)
    settings = LogMelSettings(
        pad_mode,
        float(sample_rate),
        int(n_fft) * int(playback_speed),
        int(hop_length) * int(playback_speed),
        int(n_mels),
        float(f_min),
        float(f_max),
        float(offset),
    )
    return log_mel(
        waveform,
        *dataclasses.astuple(settings),
        offsets,
        max_samples or 0,
        float(playback_speed) if append_speed else None,
        out_dtype or waveform.dtype,
        backend,
    )


def _check_offsets(waveform: torch.Tensor, offsets: torch.Tensor | None, max_samples: int | None) -> None:
    if (offsets is None) != (max_samples is None):
        raise ValueError("offsets and max_samples must be passed together")
    if offsets is None or max_samples is None:
        return
    check_tensor("offsets", offsets, (torch.int32, torch.int64))
    check_same_device("offsets", offsets, "waveform", waveform)
    if offsets.dim() != 1 or offsets.shape[0] < 1:
        raise ValueError(f"offsets must be [clips + 1]; got shape {tuple(offsets.shape)}")
    if waveform.dim() != 1:
        raise ValueError(f"waveform must be [samples] with offsets; got shape {tuple(waveform.shape)}")
    check_integer("max_samples", max_samples, 0)
