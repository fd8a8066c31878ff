"""log_mel_spectrogram: from audio samples to the input of an audio encoder, MERLOT Reserve's (SPEC 2) or another's."""

from __future__ import annotations

import torch

from reserve_kernels.checks import FLOATING, check_integer, check_same_device, check_tensor
from reserve_kernels.log_mel.arguments import check_output, settings_of
from reserve_kernels.log_mel.ops import Call, spectrogram
from reserve_kernels.log_mel.presets import PRESETS
from reserve_kernels.log_mel.stream import LogMelStream
from reserve_kernels.transforms import refuse_transforms

__all__ = ["PRESETS", "LogMelStream", "log_mel_spectrogram"]


def log_mel_spectrogram(
    waveform: torch.Tensor,
    *,
    preset: str = "reserve",
    playback_speed: int = 1,
    sample_rate: float | None = None,
    n_fft: int | None = None,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: str | torch.Tensor | None = None,
    framing: str | None = None,
    drop_last: bool | None = None,
    pad_mode: str | None = None,
    sample_scale: float | None = None,
    remove_dc: bool | None = None,
    preemphasis: float | None = None,
    power: int | None = None,
    n_mels: int | None = None,
    f_min: float | None = None,
    f_max: float | None = None,
    mel_scale: str | None = None,
    mel_norm: str | None = None,
    log: str | None = None,
    floor: float | None = None,
    offset: float | None = None,
    relative: bool | None = None,
    dynamic_range: float | None = None,
    out_scale: float | None = None,
    out_shift: float | None = None,
    bands_first: bool | None = None,
    offsets: torch.Tensor | None = None,
    max_samples: int | None = None,
    append_speed: bool = False,
    out_dtype: torch.dtype | None = None,
    backend: str = "auto",
) -> torch.Tensor:
    """Log-mel spectrogram of clips, for the front end `preset` or one described by arguments.

    A frame is scaled, freed of its mean, pre-emphasised and weighed by the window, in this order and as far as asked
    for. mel = the filters times |X|^power of its Fourier transform. The result is
    k ln(max(mel, floor) + offset), less the same of silence if `relative`, limited to `dynamic_range` below the clip's
    largest value, times `out_scale`, plus `out_shift`. By default, MERLOT Reserve's, that is
    log(mel + 0.1) - log(0.1), which is 0 for silence.

    Args:
        waveform: [..., samples], float32 (float16 and bfloat16 are computed in float32, float64 in float64) or int16
            (which is divided by 32768); any strides; at least one sample, or with `offsets` any number.
        preset: the front end whose values all arguments up to `bands_first` have unless they are given: a name in
            `reserve_kernels.log_mel.PRESETS`, which says what computes the same.
        playback_speed: multiplies `n_fft`, `hop_length` and `win_length`: a clip s times as long has as many frames, as
            if it were played s times as fast.
        sample_rate: Hz.
        n_fft: samples of the Fourier transform, before `playback_speed`; at least 2.
        hop_length: samples between frames, before `playback_speed`; with more than `n_fft`, frames skip samples.
        win_length: samples of the window, before `playback_speed`; at most `n_fft`, zeros follow.
        window: "hann" or "hamming" (periodic, as in torch.stft), "hann_symmetric", "hamming_symmetric", "povey"
            (Kaldi's), "rectangular", or floating-point [win_length * playback_speed], which gets no gradient.
        framing: where frames lie. "centered": frame f is centred at sample f hop_length; half of `n_fft` is padded at
            both ends. "inside": only frames that lie inside the clip, the first at its start. In both the window is
            the middle of `n_fft` samples, as in torch.stft. "centered_window" and "inside_window" are the same with
            the window's samples alone, as in Kaldi and VGGish. "kaldi_centered": Kaldi's snip_edges=False.
        drop_last: leaves out the last frame, as Whisper does.
        pad_mode: what lies beyond the ends of a clip: "reflect" (to and fro where a clip is shorter), "constant"
            (zeros), "replicate", "circular" or "symmetric" (Kaldi's).
        sample_scale: multiplies the samples.
        remove_dc: subtracts from each frame its mean over the window's samples.
        preemphasis: subtracts this times the sample before, in each frame alone (from its first sample this times
            itself), as Kaldi does; from 0 to 1.
        power: 2 for the power |X|^2, 1 for the amplitude |X|.
        n_mels: mel bands between `f_min` and `f_max`, Hz. Bands that lie between two frequencies of the transform are
            always 0 before the logarithm; a UserWarning counts them, but for those that a preset leaves empty.
        mel_scale: "slaney" or "htk" (triangles linear in Hz), or "kaldi" (HTK's mels, triangles linear in mels).
        mel_norm: "slaney" divides each triangle by half its width in Hz, "none" leaves its peak at 1.
        log: "ln", "log10", "db" (10 log10 of a power, 20 log10 of an amplitude) or "none", for mel itself.
        floor, offset: what mel is raised to at least and what is added to it before the logarithm; neither below 0, and
            their sum from 1e-30 to 1e30.
        relative: subtracts the logarithm of floor + offset.
        dynamic_range: values are at least the largest of their clip less this, in units of the logarithm; math.inf for
            no limit.
        out_scale, out_shift: applied last, such as for a model's normalisation by mean and deviation.
        bands_first: returns [..., n_mels, frames].
        offsets: int32 or int64 [clips + 1]. `waveform` is then [samples], clips of any length one after another; clip c
            is samples offsets[c] to offsets[c + 1]. Values must not decrease and must lie within the waveform. A GPU
            does not validate them, since the host would wait. Empty clips have no frames.
        max_samples: with `offsets`, the length of the longest clip, or an upper bound; longer clips lose their last
            frames.
        append_speed: appends a column that holds `playback_speed`, as MERLOT Reserve's audio encoder takes it (SPEC 1);
            not with `bands_first`.
        out_dtype: float32, bfloat16, float16 or float64; by default that of `waveform`, for int16 float32. Everything
            is computed in float32 (in float64 for a float64 waveform) and rounded once. Powers without a logarithm can
            exceed float16's largest number.
        backend: "auto" or a name from `reserve_kernels.backends()`. "native" (CPU) and "cuda" take every `n_fft` up to
            8192 with no other prime factors than 2, 3 and 5, as long as it is multiplied by `playback_speed`; "auto"
            runs "reference" for anything else.

    Returns:
        [..., frames, n_mels]; 1 + samples // hop_length frames if they are centred and `n_fft` is even, none where a
        clip is too short for "inside". With `offsets`: [clips, frames of max_samples samples, n_mels], where frames
        beyond a clip's own are 0.
        NaN and infinite samples make the frames that hold them NaN, with a `dynamic_range` all frames of the clip.

    Raises:
        TypeError: an argument has the wrong type; a float is not an integer.
        ValueError: an argument is out of range; the message names it and what is allowed.
        RuntimeError: the named backend cannot run here; a CUDA graph is being captured at the first call; or a double
            backward, which is not implemented.
        NotImplementedError: under vmap, forward-mode differentiation or torch.func.grad and its relatives.

    Without a gradient the memory beside the result does not grow with the length of a clip; for a `dynamic_range` it
    does, by one more result, unless "native" returns float32. Before a CUDA graph can capture it, it must have run once
    with the same parameters, with a backward pass if the graph has one. The backward pass computes the spectrum again,
    for all frames at once.
    """
    check_tensor("waveform", waveform, (*FLOATING, torch.int16))
    if waveform.dim() == 0 or (waveform.shape[-1] == 0 and offsets is None):
        raise ValueError(f"waveform must be [..., samples] with at least one sample; got shape {tuple(waveform.shape)}")
    overrides = {
        "sample_rate": sample_rate,
        "n_fft": n_fft,
        "hop_length": hop_length,
        "win_length": win_length,
        "window": window,
        "framing": framing,
        "drop_last": drop_last,
        "pad_mode": pad_mode,
        "sample_scale": sample_scale,
        "remove_dc": remove_dc,
        "preemphasis": preemphasis,
        "power": power,
        "n_mels": n_mels,
        "f_min": f_min,
        "f_max": f_max,
        "mel_scale": mel_scale,
        "mel_norm": mel_norm,
        "log": log,
        "floor": floor,
        "offset": offset,
        "relative": relative,
        "dynamic_range": dynamic_range,
        "out_scale": out_scale,
        "out_shift": out_shift,
        "bands_first": bands_first,
    }
    settings, given = settings_of(preset, overrides, playback_speed)
    if given is not None:
        check_same_device("window", given, "waveform", waveform)
    check_output(settings, append_speed, out_dtype)
    _check_offsets(waveform, offsets, max_samples)
    refuse_transforms("log_mel_spectrogram", waveform, offsets)
    own_dtype = torch.float32 if waveform.dtype == torch.int16 else waveform.dtype
    appended = float(playback_speed) if append_speed else None
    return spectrogram(
        waveform, settings, Call(given, offsets, max_samples or 0, appended, out_dtype or own_dtype, backend)
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
