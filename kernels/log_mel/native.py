"""log_mel_spectrogram by the native library, on the CPU and on CUDA, fused from samples to rows."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch

from reserve_kernels import native
from reserve_kernels.log_mel.constants import kept_on
from reserve_kernels.log_mel.filters import mel_filterbank
from reserve_kernels.log_mel.reference import as_numbers
from reserve_kernels.log_mel.settings import LogMelSettings

OUT_DTYPES = {torch.float32: native.FLOAT32, torch.bfloat16: native.BFLOAT16}


@dataclass(frozen=True)
class Constants:
    """Window, filters and tables in the library's layout, on one device."""

    window: torch.Tensor
    """float32 [n_fft]"""
    band_start: torch.Tensor
    """int32 [n_mels], the first bin of each band"""
    band_row: torch.Tensor
    """int32 [n_mels + 1], where the weights of each band start"""
    band_weight: torch.Tensor
    """float32, the weights of all bands one after another"""
    twiddles: torch.Tensor
    """float32, the transform's (`NativeLibrary.log_mel_tables`)"""
    placed_row: torch.Tensor
    """int32 [n_mels + 1], where the weights of each band start in `placed_weight`"""
    placed_weight: torch.Tensor
    """int32 [.., 2], for each weight the index of its power in a CUDA block, and its bits; bands are padded to fours"""


def constants(settings: LogMelSettings, device: torch.device) -> Constants:
    """The constants of `settings` on `device`, computed in float64."""
    if device.type == "cpu":
        return _constants(settings)

    def copied() -> Constants:
        made = _constants(settings)
        return Constants(*(getattr(made, field.name).to(device) for field in dataclasses.fields(Constants)))

    return kept_on(device, settings, copied)


@functools.lru_cache(maxsize=32)
def _constants(settings: LogMelSettings) -> Constants:
    bank = mel_filterbank(*settings.bank)
    covered = bank > 0
    start = covered.int().argmax(1)
    end = torch.where(covered.any(1), bank.shape[1] - covered.flip(1).int().argmax(1), start)
    bins = torch.arange(bank.shape[1], device="cpu")
    inside = (bins >= start[:, None]) & (bins < end[:, None])
    twiddles, places = native.library().log_mel_tables(settings.n_fft)
    row = _starts(end - start)
    # One extra weight: all bands may be empty, and an empty array has no address.
    weight = torch.cat([bank[inside], bank.new_zeros(1)]).float()
    place = torch.cat([places.expand(len(bank), -1)[inside], places[:1]])
    return Constants(
        settings.window_for(bank).float(),
        start.int(),
        row.int(),
        weight,
        twiddles,
        *_placed(weight, place, row),
    )


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


def problem_of(
    waveform: torch.Tensor,
    settings: LogMelSettings,
    offsets: torch.Tensor | None,
    out: torch.Tensor,
    append: float | None,
    held: Constants,
) -> native.LogMel:
    """The C view of one call: `waveform` contiguous float32, `offsets` int64, `out` [..., frames, columns]."""
    return native.LogMel(
        waveform=waveform.data_ptr(),
        clip_offsets=None if offsets is None else offsets.data_ptr(),
        clips=out.shape[:-2].numel(),
        samples=waveform.shape[-1],
        clip_stride=waveform.shape[-1],
        frames=out.shape[-2],
        n_fft=settings.n_fft,
        hop_length=settings.hop_length,
        pad_mode=0 if settings.pad_mode == "reflect" else 1,
        n_mels=settings.n_mels,
        window=held.window.data_ptr(),
        band_start=held.band_start.data_ptr(),
        band_row=held.band_row.data_ptr(),
        band_weight=held.band_weight.data_ptr(),
        offset=settings.offset,
        append=append is not None,
        append_value=append or 0.0,
        out_dtype=OUT_DTYPES[out.dtype],
        out=out.data_ptr(),
        twiddles=held.twiddles.data_ptr(),
        placed_row=held.placed_row.data_ptr(),
        placed_weight=held.placed_weight.data_ptr(),
    )


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
    waveform = as_numbers(waveform).contiguous()
    offsets = None if offsets is None else offsets.to(torch.int64).contiguous()
    shape = settings.out_shape(waveform.shape, offsets, max_samples)
    written = out_dtype if out_dtype in OUT_DTYPES else torch.float32
    out = waveform.new_empty((*shape[:-1], shape[-1] + (append is not None)), dtype=written)
    held = constants(settings, waveform.device)
    problem = problem_of(waveform, settings, offsets, out, append, held)
    if run is not None:
        run(problem)
    elif waveform.device.type == "cuda":
        with torch.cuda.device(waveform.device):
            native.library().log_mel_cuda(problem, torch.cuda.current_stream().cuda_stream)
    else:
        native.library().log_mel_cpu(problem, torch.get_num_threads())
    return out.to(out_dtype)
