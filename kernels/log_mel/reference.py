"""What log_mel_spectrogram means, in plain PyTorch: exact in float64."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch

from reserve_kernels.log_mel.constants import kept_on

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
    """Triangular, area-normalised Slaney filters (SPEC 2), float64 [n_mels, n_fft // 2 + 1], on the CPU."""
    # The result is cached: it must not depend on the default device of the first call.
    mels = torch.linspace(hz_to_mel(f_min), hz_to_mel(f_max), n_mels + 2, dtype=torch.float64, device="cpu")
    edges = mel_to_hz(mels)
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64, device="cpu") * (sample_rate / n_fft)
    width = edges.diff()
    rising = (bins - edges[:-2, None]) / width[:-1, None]
    falling = (edges[2:, None] - bins) / width[1:, None]
    triangles = torch.minimum(rising, falling).clamp_min(0.0)
    return triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None]


@functools.lru_cache(maxsize=32)
def count_empty_bands(sample_rate: float, n_fft: int, n_mels: int, f_min: float, f_max: float) -> int:
    """How many filters lie between two bins of the transform and so are zero."""
    filters = mel_filterbank(sample_rate, n_fft, n_mels, f_min, f_max)
    return int((filters == 0).all(1).sum())


def reflect_index(samples: int, pad: int, device: torch.device) -> torch.Tensor:
    """Indices [samples + 2 pad] that pad by reflecting about the end samples, repeatedly if the padding is long."""
    position = torch.arange(-pad, samples + pad, device=device)
    if samples == 1:
        return torch.zeros_like(position)
    period = 2 * (samples - 1)
    folded = position.remainder(period)
    return torch.minimum(folded, period - folded)


@dataclass(frozen=True)
class LogMelSettings:
    """The parameters after playback speed is applied, in samples, Hz and power."""

    pad_mode: str
    sample_rate: float
    n_fft: int
    hop_length: int
    n_mels: int
    f_min: float
    f_max: float
    offset: float

    def frames(self, samples: int) -> int:
        """The number of frames of `samples` samples."""
        return 1 + (samples + 2 * (self.n_fft // 2) - self.n_fft) // self.hop_length

    def out_shape(
        self, shape: torch.Size, offsets: torch.Tensor | None = None, max_samples: int = 0
    ) -> tuple[int, ...]:
        """Shape of the output for a waveform of `shape`; `offsets` and `max_samples` as in `ragged_index`."""
        if offsets is None:
            return (*shape[:-1], self.frames(shape[-1]), self.n_mels)
        return (offsets.shape[0] - 1, self.frames(max_samples), self.n_mels)

    def window(self, like: torch.Tensor) -> torch.Tensor:
        """Symmetric Hann window [n_fft] in the dtype and on the device of `like`, computed in float64."""

        def make() -> torch.Tensor:
            window = torch.hann_window(self.n_fft, periodic=False, dtype=torch.float64, device="cpu")
            return window.to(like.device, like.dtype)

        return kept_on(like.device, ("window", self.n_fft, like.dtype), make)

    def filters(self, like: torch.Tensor) -> torch.Tensor:
        """The filterbank in the dtype and on the device of `like`."""
        bank = (self.sample_rate, self.n_fft, self.n_mels, self.f_min, self.f_max)
        return kept_on(
            like.device, ("filters", bank, like.dtype), lambda: mel_filterbank(*bank).to(like.device, like.dtype)
        )

    def padded_index(self, samples: int, device: torch.device) -> torch.Tensor:
        """For each padded sample the index of the sample it repeats, int64 [samples + 2 (n_fft // 2)]; -1 for zeros."""
        pad = self.n_fft // 2
        if self.pad_mode == "reflect":
            return reflect_index(samples, pad, device)
        position = torch.arange(-pad, samples + pad, device=device)
        return torch.where((position >= 0) & (position < samples), position, -1)

    def ragged_index(self, offsets: torch.Tensor, max_samples: int) -> torch.Tensor:
        """`padded_index` of clips that lie one after another, int64 [clips, max_samples + 2 (n_fft // 2)].

        Clip c is samples offsets[c] to offsets[c + 1] of the waveform; `max_samples` is the length of the longest.
        """
        start, length = offsets[:-1, None].long(), offsets.diff()[:, None].long()
        pad = self.n_fft // 2
        position = torch.arange(-pad, max_samples + pad, device=offsets.device).expand(len(start), -1)
        inside = (position >= 0) & (position < length)
        if self.pad_mode == "reflect":
            period = (2 * (length - 1)).clamp_min(1)
            folded = position.remainder(period)
            position = torch.where(length == 1, 0, torch.minimum(folded, period - folded))
            inside = (length > 0).expand_as(position)
        return torch.where(inside, start + position, -1)

    def unused_frames(self, offsets: torch.Tensor, max_samples: int) -> torch.Tensor:
        """Which frames [clips, frames] lie beyond the last one of their clip."""
        length = offsets.diff()
        own = torch.where(length > 0, 1 + (length + 2 * (self.n_fft // 2) - self.n_fft) // self.hop_length, 0)
        return torch.arange(self.frames(max_samples), device=offsets.device) >= own[:, None]

    def index(self, waveform: torch.Tensor, offsets: torch.Tensor | None, max_samples: int) -> torch.Tensor:
        """`padded_index` without offsets, `ragged_index` with them."""
        if offsets is None:
            return self.padded_index(waveform.shape[-1], waveform.device)
        return self.ragged_index(offsets, max_samples)


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which a waveform of `dtype` is computed."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _spectrum(waveform: torch.Tensor, settings: LogMelSettings, index: torch.Tensor) -> torch.Tensor:
    """Complex spectrum of the windowed frames of waveform[..., index], [..., frames, n_fft // 2 + 1]."""
    padded = waveform[..., index.clamp_min(0)]
    if settings.pad_mode == "constant":
        # Not a product with 0, which would keep NaN and infinite samples.
        padded = padded.masked_fill(index < 0, 0.0)
    frames = padded.unfold(-1, settings.n_fft, settings.hop_length) * settings.window(waveform)
    return torch.fft.rfft(frames)


def log_mel_reference(
    waveform: torch.Tensor, settings: LogMelSettings, offsets: torch.Tensor | None = None, max_samples: int = 0
) -> torch.Tensor:
    """`log(mel + offset) - log(offset)` of the power spectrum, [..., samples] -> [..., frames, n_mels], same dtype.

    With `offsets` [clips + 1] the waveform is clips one after another; then -> [clips, frames(max_samples), n_mels],
    where frames beyond the last one of a clip are 0.
    """
    shape = settings.out_shape(waveform.shape, offsets, max_samples)
    if waveform.numel() == 0 or 0 in shape:
        # No clips, or clips without samples.
        return waveform.new_zeros(shape)
    spectrum = _spectrum(waveform, settings, settings.index(waveform, offsets, max_samples))
    mel = (spectrum.real.square() + spectrum.imag.square()) @ settings.filters(waveform).T
    out = torch.log(mel + settings.offset) - math.log(settings.offset)
    return out if offsets is None else out.masked_fill(settings.unused_frames(offsets, max_samples)[..., None], 0.0)


def log_mel_rows(
    waveform: torch.Tensor,
    settings: LogMelSettings,
    offsets: torch.Tensor | None,
    max_samples: int,
    *,
    out_dtype: torch.dtype,
    append: float | None,
) -> torch.Tensor:
    """`log_mel_reference` computed in float32 or float64, with a last column of `append` if given, in `out_dtype`."""
    out = log_mel_reference(waveform.to(compute_dtype(waveform.dtype)), settings, offsets, max_samples)
    if append is not None:
        column = out.new_full((*out.shape[:-1], 1), append)
        if offsets is not None:
            column = column.masked_fill(settings.unused_frames(offsets, max_samples)[..., None], 0.0)
        out = torch.cat([out, column], dim=-1)
    return out.to(out_dtype).contiguous()


def log_mel_reference_backward(
    grad: torch.Tensor,
    waveform: torch.Tensor,
    settings: LogMelSettings,
    offsets: torch.Tensor | None = None,
    max_samples: int = 0,
) -> torch.Tensor:
    """The gradient of `waveform` from that of the output: the transposed steps of the forward, in reverse order."""
    if waveform.numel() == 0 or grad.numel() == 0:
        return torch.zeros_like(waveform)
    samples = waveform.shape[-1]
    filters = settings.filters(waveform)
    index = settings.index(waveform, offsets, max_samples)
    spectrum = _spectrum(waveform, settings, index)
    mel = (spectrum.real.square() + spectrum.imag.square()) @ filters.T
    grad_power = (grad / (mel + settings.offset)) @ filters
    # The transpose of rfft: the inverse transform without its 1/n, with half weight for bins that have a mirror image.
    weight = torch.full((filters.shape[1],), 0.5, dtype=waveform.dtype, device=waveform.device)
    # `weight[0] = 1.0` would make the host wait for a GPU.
    weight[:1].fill_(1.0)
    if settings.n_fft % 2 == 0:
        weight[-1:].fill_(1.0)
    grad_frames = 2 * spectrum * (grad_power * weight)
    grad_frames = torch.fft.irfft(grad_frames, n=settings.n_fft, norm="forward") * settings.window(waveform)
    index = index.unfold(-1, settings.n_fft, settings.hop_length)
    # The gradient of padding zeros goes to one extra element, which is dropped.
    index = torch.where(index < 0, samples, index)
    if offsets is not None:
        index = torch.where(settings.unused_frames(offsets, max_samples)[..., None], samples, index)
    grad_waveform = waveform.new_zeros((*waveform.shape[:-1], samples + 1))
    batch = waveform.dim() - 1
    grad_waveform.index_add_(-1, index.flatten(), grad_frames.flatten(batch))
    return grad_waveform[..., :samples]
