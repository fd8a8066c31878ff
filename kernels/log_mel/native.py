"""log_mel_spectrogram by the native library, on the CPU and on CUDA, fused from samples to rows."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from reserve_kernels import native
from reserve_kernels.log_mel.constants import kept_on
from reserve_kernels.log_mel.filters import mel_filterbank
from reserve_kernels.log_mel.reference import as_numbers
from reserve_kernels.log_mel.settings import LogMelSettings
from reserve_kernels.log_mel.windows import GIVEN

IN_DTYPES = {
    torch.float32: native.FLOAT32,
    torch.bfloat16: native.BFLOAT16,
    torch.float16: native.FLOAT16,
    torch.int16: native.INT16,
}
OUT_DTYPES = {torch.float32: native.FLOAT32, torch.bfloat16: native.BFLOAT16}
FIXED_N_FFT = (1536, 3072, 4608)
"""The transforms with code of their own: MERLOT Reserve's at playback speeds 1, 2 and 3."""


@dataclass(frozen=True)
class Constants:
    """Window, filters and tables in the library's layout, on one device."""

    window: torch.Tensor
    """float32 [window's length], times what the samples are scaled by; empty if it is given with each call"""
    band_start: torch.Tensor
    """int32 [n_mels], the first bin of each band"""
    band_row: torch.Tensor
    """int32 [n_mels + 1], where the weights of each band start"""
    band_weight: torch.Tensor
    """float32, the weights of all bands one after another"""
    twiddles: torch.Tensor
    """float32, the transform's (`NativeLibrary.log_mel_tables`)"""
    places: torch.Tensor
    """int32 [n_fft // 2 + 1], the index of each bin's power in a CUDA block"""
    placed_row: torch.Tensor
    """int32 [n_mels + 1], where the weights of each band start in `placed_weight`"""
    placed_weight: torch.Tensor
    """int32 [.., 2], for each weight the index of its power in a CUDA block, and its bits; bands are padded to fours"""


def constants(settings: LogMelSettings, device: torch.device, dtype: torch.dtype = torch.float32) -> Constants:
    """The constants of `settings` for samples of `dtype` on `device`, computed in float64."""
    if device.type == "cpu":
        return _constants(settings, dtype)

    def copied() -> Constants:
        made = _constants(settings, dtype)
        return Constants(*(getattr(made, field.name).to(device) for field in dataclasses.fields(Constants)))

    return kept_on(device, (settings, dtype), copied)


@functools.lru_cache(maxsize=32)
def _constants(settings: LogMelSettings, dtype: torch.dtype) -> Constants:
    bank = mel_filterbank(*settings.bank)
    covered = bank > 0
    start = covered.int().argmax(1)
    end = torch.where(covered.any(1), bank.shape[1] - covered.flip(1).int().argmax(1), start)
    bins = torch.arange(bank.shape[1], device="cpu")
    inside = (bins >= start[:, None]) & (bins < end[:, None])
    twiddles, places = native.library().log_mel_tables(numbers_of(settings, dtype))
    row = _starts(end - start)
    # One extra weight: all bands may be empty, and an empty array has no address.
    weight = torch.cat([bank[inside], bank.new_zeros(1)]).float()
    place = torch.cat([places.expand(len(bank), -1)[inside], places[:1]])
    window = bank.new_empty(0) if settings.window == GIVEN else settings.window_for(bank)
    return Constants(
        (window * _sample_scale(settings, dtype)).float(),
        start.int(),
        row.int(),
        weight,
        twiddles,
        places,
        *_placed(weight, place, row),
    )


def _sample_scale(settings: LogMelSettings, dtype: torch.dtype) -> float:
    """What samples of `dtype` are multiplied by, as the reference does."""
    return settings.sample_scale / 32768.0 if dtype == torch.int16 else settings.sample_scale


def _placed(weight: torch.Tensor, place: torch.Tensor, row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`placed_row` and `placed_weight` of weights whose bands start at `row`.

    Padding to a multiple of 4 repeats a band's last bin with weight 0, which does not change its sum, nor spread NaN.
    """
    count = torch.cat([row.diff(), row.new_ones(1)])
    row = torch.cat([row, row[-1:] + 1])
    padded = _starts((count + 3) // 4 * 4)
    band = torch.repeat_interleave(padded.diff())
    position = torch.arange(int(padded[-1]), device="cpu") - padded[band]
    source = row[band] + torch.minimum(position, count[band] - 1)
    bits = torch.where(position < count[band], weight[source], 0.0).view(torch.int32)
    return padded[:-1].int(), torch.stack([place[source], bits], dim=1)


def _starts(lengths: torch.Tensor) -> torch.Tensor:
    """Where each of int64 `lengths` [n] starts if they lie one after another, and where the last one ends: [n + 1]."""
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


def numbers_of(settings: LogMelSettings, dtype: torch.dtype) -> native.LogMel:
    """The C view of `settings` for samples of `dtype`, without arrays."""
    return native.LogMel.from_buffer_copy(_numbers(settings, dtype))


@functools.lru_cache(maxsize=256)
def _numbers(settings: LogMelSettings, dtype: torch.dtype) -> native.LogMel:
    factor = settings.log_factor if settings.log != "none" else 1.0
    return native.LogMel(
        start=settings.start,
        frame_extra=settings.frame_extra,
        in_dtype=IN_DTYPES[dtype],
        n_fft=settings.n_fft,
        window_length=settings.length,
        hop_length=settings.hop_length,
        pad_mode=native.PAD_MODE[settings.pad_mode],
        remove_dc=settings.remove_dc,
        preemphasis=settings.preemphasis,
        power=settings.power,
        n_mels=settings.n_mels,
        log=settings.log != "none",
        floor=settings.floor,
        offset=settings.offset,
        relative=settings.relative,
        out_scale=factor * settings.out_scale,
        out_shift=settings.out_shift,
        bands_first=settings.bands_first,
    )


def problem_of(
    waveform: torch.Tensor,
    settings: LogMelSettings,
    offsets: torch.Tensor | None,
    out: torch.Tensor,
    append: float | None,
    held: Constants,
    window: torch.Tensor | None = None,
) -> native.LogMel:
    """The C view of one call.

    `waveform` is contiguous and of IN_DTYPES, `offsets` int64, `out` [..., frames, columns] or [..., n_mels, frames];
    `window` replaces that of `held`.
    """
    problem = numbers_of(settings, waveform.dtype)
    problem.waveform = waveform.data_ptr()
    problem.clip_offsets = None if offsets is None else offsets.data_ptr()
    problem.clips = out.shape[:-2].numel()
    problem.samples = problem.clip_stride = waveform.shape[-1]
    problem.frames = out.shape[-1 if settings.bands_first else -2]
    problem.window = (held.window if window is None else window).data_ptr()
    for name in ("band_start", "band_row", "band_weight", "twiddles", "places", "placed_row", "placed_weight"):
        setattr(problem, name, getattr(held, name).data_ptr())
    problem.append = append is not None
    problem.append_value = append or 0.0
    problem.out_dtype = OUT_DTYPES[out.dtype]
    problem.out = out.data_ptr()
    return problem


def log_mel_native(
    waveform: torch.Tensor,
    settings: LogMelSettings,
    offsets: torch.Tensor | None = None,
    max_samples: int = 0,
    *,
    out_dtype: torch.dtype = torch.float32,
    append: float | None = None,
    window: torch.Tensor | None = None,
    run: Callable[[native.LogMel], None] | None = None,
) -> torch.Tensor:
    """`log_mel_reference` and a last column of `append`, in `out_dtype`; float16 is rounded from float32 afterwards.

    `run` executes the problem instead of the kernel for the device of `waveform`; tests pass it.
    """
    # The CUDA kernels of the model's own transforms read float32.
    as_it_is = waveform.dtype in IN_DTYPES and (waveform.device.type == "cpu" or settings.n_fft not in FIXED_N_FFT)
    waveform = (waveform if as_it_is else as_numbers(waveform)).contiguous()
    offsets = None if offsets is None else offsets.to(torch.int64).contiguous()
    # What follows a limit to the range rounds once more.
    written = out_dtype if out_dtype in OUT_DTYPES and settings.dynamic_range == math.inf else torch.float32
    out = waveform.new_empty(
        settings.out_shape(waveform.shape, offsets, max_samples, columns=int(append is not None)), dtype=written
    )
    if out.numel() == 0:
        return out.to(out_dtype)
    held = constants(settings, waveform.device, waveform.dtype)
    if window is not None:
        window = (window.to(waveform.device, torch.float32) * _sample_scale(settings, waveform.dtype)).contiguous()
    problem = problem_of(waveform, settings, offsets, out, append, held, window)
    limited = settings.dynamic_range < math.inf
    if run is None and waveform.device.type == "cpu":
        below = settings.dynamic_range * settings.out_scale if limited else None
        native.library().log_mel_cpu(problem, torch.get_num_threads(), below=below)
        return out.to(out_dtype)
    if run is not None:
        run(problem)
    else:
        with torch.cuda.device(waveform.device):
            native.library().log_mel_cuda(problem, torch.cuda.current_stream().cuda_stream)
    if limited:
        _limit_range(out, settings, offsets, max_samples)
    return out.to(out_dtype)


def _limit_range(out: torch.Tensor, settings: LogMelSettings, offsets: torch.Tensor | None, max_samples: int) -> None:
    """Limits `out`, already scaled and shifted, to the range below each clip's largest value, in place.

    A column of the speed is not of the range.
    """
    bands = out if settings.bands_first else out[..., : settings.n_mels]
    below = settings.dynamic_range * settings.out_scale
    unused = None
    if offsets is not None:
        unused = settings.unused_frames(offsets, max_samples)[..., None]
        unused = unused.transpose(-1, -2) if settings.bands_first else unused
        bands.masked_fill_(unused, -math.copysign(math.inf, below))
    if below > 0:
        torch.maximum(bands, bands.amax((-2, -1), keepdim=True) - below, out=bands)
    else:
        torch.minimum(bands, bands.amin((-2, -1), keepdim=True) - below, out=bands)
    if unused is not None:
        bands.masked_fill_(unused, 0.0)
