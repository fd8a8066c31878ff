"""What log_mel_spectrogram means, in plain PyTorch: exact in float64."""

from __future__ import annotations

import math

import torch

from reserve_kernels.log_mel.settings import LogMelSettings

PART = 1 << 24
"""Samples of frames that are computed at a time, so that the memory of a long clip is bounded. The gradient is that of
all frames at once."""


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which a waveform of `dtype` is computed."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def log_mel_reference(
    waveform: torch.Tensor,
    settings: LogMelSettings,
    offsets: torch.Tensor | None = None,
    max_samples: int = 0,
    *,
    window: torch.Tensor | None = None,
) -> torch.Tensor:
    """The spectrogram of [..., samples]: [..., frames, n_mels] or [..., n_mels, frames], in the waveform's dtype.

    With `offsets` [clips + 1] the waveform is clips one after another; then -> [clips, frames(max_samples), n_mels],
    where frames beyond the last one of a clip are 0. `window` is that of settings.window == "given".
    """
    shape = settings.out_shape(waveform.shape, offsets, max_samples)
    if waveform.numel() == 0 or 0 in shape:
        # No clips, or clips without samples or without frames.
        return waveform.new_zeros(shape)
    frames = shape[-1] if settings.bands_first else shape[-2]
    clips = waveform.shape[:-1].numel() if offsets is None else offsets.shape[0] - 1
    at_once = max(1, PART // (clips * settings.n_fft))
    parts = []
    for first in range(0, frames, at_once):
        index = settings.index(waveform, offsets, first, min(at_once, frames - first))
        parts.append(
            _logarithm(_mel(_spectrum(_framed(waveform, settings, index, window), settings), settings), settings)
        )
    out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-2)
    unused = None if offsets is None else settings.unused_frames(offsets, max_samples)[..., None]
    return finish(out, settings, unused)


def _framed(
    waveform: torch.Tensor, settings: LogMelSettings, index: torch.Tensor, window: torch.Tensor | None
) -> torch.Tensor:
    """Windowed frames [..., frames, window's length] of waveform[..., index]."""
    span = waveform[..., index.clamp_min(0)]
    if settings.pad_mode == "constant":
        # Not a product with 0, which would keep NaN and infinite samples.
        span = span.masked_fill(index < 0, 0.0)
    if settings.sample_scale != 1.0:
        span = span * settings.sample_scale
    frames = span.unfold(-1, settings.length, settings.hop_length)
    if settings.remove_dc:
        frames = frames - frames.mean(-1, keepdim=True)
    if settings.preemphasis:
        frames = frames - settings.preemphasis * torch.cat((frames[..., :1], frames[..., :-1]), dim=-1)
    return frames * settings.window_for(waveform, window)


def _spectrum(frames: torch.Tensor, settings: LogMelSettings) -> torch.Tensor:
    """Complex spectrum [..., n_fft // 2 + 1] of windowed frames, zeros after them."""
    return torch.fft.rfft(frames, n=settings.n_fft)


def _mel(spectrum: torch.Tensor, settings: LogMelSettings) -> torch.Tensor:
    power = spectrum.real.square() + spectrum.imag.square()
    return (power if settings.power == 2 else power.sqrt()) @ settings.filters(power).T


def _logarithm(mel: torch.Tensor, settings: LogMelSettings) -> torch.Tensor:
    if settings.log == "none":
        return mel
    floored = mel.clamp_min(settings.floor) if settings.floor > 0 else mel
    out = torch.log(floored + settings.offset)
    if settings.relative:
        out = out - math.log(settings.floor + settings.offset)
    return out if settings.log == "ln" else out * settings.log_factor


def finish(out: torch.Tensor, settings: LogMelSettings, unused: torch.Tensor | None = None) -> torch.Tensor:
    """What follows the logarithm: the range below each clip's largest value, scale and shift, and the layout.

    `out` is [..., frames, n_mels]; frames that are `unused` [..., frames, 1] do not count and become 0.
    """
    if settings.dynamic_range < math.inf:
        counted = out if unused is None else out.masked_fill(unused, -math.inf)
        out = torch.maximum(out, counted.amax((-2, -1), keepdim=True) - settings.dynamic_range)
    if settings.out_scale != 1.0 or settings.out_shift != 0.0:
        out = out * settings.out_scale + settings.out_shift
    if unused is not None:
        out = out.masked_fill(unused, 0.0)
    return out.transpose(-1, -2).contiguous() if settings.bands_first else out


def log_mel_rows(
    waveform: torch.Tensor,
    settings: LogMelSettings,
    offsets: torch.Tensor | None,
    max_samples: int,
    *,
    out_dtype: torch.dtype,
    append: float | None,
    window: torch.Tensor | None = None,
) -> torch.Tensor:
    """`log_mel_reference` computed in float32 or float64, with a last column of `append` if given, in `out_dtype`."""
    out = log_mel_reference(as_numbers(waveform), settings, offsets, max_samples, window=window)
    if append is not None:
        column = out.new_full((*out.shape[:-1], 1), append)
        if offsets is not None:
            column = column.masked_fill(settings.unused_frames(offsets, max_samples)[..., None], 0.0)
        out = torch.cat([out, column], dim=-1)
    return out.to(out_dtype).contiguous()


def as_numbers(waveform: torch.Tensor) -> torch.Tensor:
    """Samples in the dtype that they are computed in; int16 from -1 to 1."""
    if waveform.dtype == torch.int16:
        return waveform.to(torch.float32) / 32768.0
    return waveform.to(compute_dtype(waveform.dtype))


def log_mel_reference_backward(
    grad: torch.Tensor,
    waveform: torch.Tensor,
    settings: LogMelSettings,
    offsets: torch.Tensor | None = None,
    max_samples: int = 0,
    *,
    window: torch.Tensor | None = None,
) -> torch.Tensor:
    """The gradient of `waveform` from that of the output: the transposed steps of the forward, in reverse order."""
    if waveform.numel() == 0 or grad.numel() == 0:
        return torch.zeros_like(waveform)
    if settings.bands_first:
        grad = grad.transpose(-1, -2)
    index = settings.index(waveform, offsets, 0, grad.shape[-2])
    spectrum = _spectrum(_framed(waveform, settings, index, window), settings)
    mel = _mel(spectrum, settings)
    unused = None if offsets is None else settings.unused_frames(offsets, max_samples)[..., None]
    if unused is not None:
        grad = grad.masked_fill(unused, 0.0)
    if settings.out_scale != 1.0:
        grad = grad * settings.out_scale
    if settings.dynamic_range < math.inf:
        grad = _range_backward(grad, _logarithm(mel, settings), settings, unused)
    grad_power = _logarithm_backward(grad, mel, settings) @ settings.filters(waveform)
    grad_span = _framed_backward(_power_backward(grad_power, spectrum, settings), settings, waveform, window)
    samples = waveform.shape[-1]
    index = index.unfold(-1, settings.length, settings.hop_length)
    # The gradient of padding zeros goes to one extra element, which is dropped.
    index = torch.where(index < 0, samples, index)
    if unused is not None:
        index = torch.where(unused, samples, index)
    grad_waveform = waveform.new_zeros((*waveform.shape[:-1], samples + 1))
    batch = waveform.dim() - 1
    grad_waveform.index_add_(-1, index.flatten(), grad_span.flatten(batch))
    grad_waveform = grad_waveform[..., :samples]
    return grad_waveform if settings.sample_scale == 1.0 else grad_waveform * settings.sample_scale


def _range_backward(
    grad: torch.Tensor, out: torch.Tensor, settings: LogMelSettings, unused: torch.Tensor | None
) -> torch.Tensor:
    """The gradient before the range was limited. Where a value was raised, that of the clip's largest gets it."""
    counted = out if unused is None else out.masked_fill(unused, -math.inf)
    largest = counted.amax((-2, -1), keepdim=True)
    least = largest - settings.dynamic_range
    kept = torch.where(out == least, 0.5, (out > least).to(out.dtype))
    is_largest = (counted == largest).to(out.dtype)
    raised = (grad * (1 - kept)).sum((-2, -1), keepdim=True)
    return grad * kept + raised * is_largest / is_largest.sum((-2, -1), keepdim=True)


def _logarithm_backward(grad: torch.Tensor, mel: torch.Tensor, settings: LogMelSettings) -> torch.Tensor:
    if settings.log == "none":
        return grad
    if settings.floor > 0:
        grad = grad.masked_fill(mel < settings.floor, 0.0)
        mel = mel.clamp_min(settings.floor)
    grad = grad / (mel + settings.offset)
    return grad if settings.log == "ln" else grad * settings.log_factor


def _power_backward(grad_power: torch.Tensor, spectrum: torch.Tensor, settings: LogMelSettings) -> torch.Tensor:
    """The gradient of the windowed frames [..., window's length]."""
    # The transpose of rfft: the inverse transform without its 1/n, with half weight for bins that have a mirror image.
    weight = torch.full((grad_power.shape[-1],), 0.5, dtype=grad_power.dtype, device=grad_power.device)
    # `weight[0] = 1.0` would make the host wait for a GPU.
    weight[:1].fill_(1.0)
    if settings.n_fft % 2 == 0:
        weight[-1:].fill_(1.0)
    if settings.power == 2:
        grad_spectrum = 2 * spectrum * (grad_power * weight)
    else:
        magnitude = spectrum.abs()
        grad_spectrum = spectrum * (grad_power * weight / torch.where(magnitude == 0, 1.0, magnitude))
    return torch.fft.irfft(grad_spectrum, n=settings.n_fft, norm="forward")[..., : settings.length]


def _framed_backward(
    grad: torch.Tensor, settings: LogMelSettings, like: torch.Tensor, window: torch.Tensor | None
) -> torch.Tensor:
    """The gradient of the samples of each frame from that of the windowed frame."""
    grad = grad * settings.window_for(like, window)
    if settings.preemphasis:
        # Each sample goes to its own place and, negated, to the next; the first one to its own twice.
        later = torch.nn.functional.pad(grad[..., 1:], (0, 1))
        later = torch.cat((later[..., :1] + grad[..., :1], later[..., 1:]), dim=-1)
        grad = grad - settings.preemphasis * later
    if settings.remove_dc:
        grad = grad - grad.mean(-1, keepdim=True)
    return grad
