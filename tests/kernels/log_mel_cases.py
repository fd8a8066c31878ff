"""Tests of the CUDA code of log_mel_spectrogram that run both on a GPU and emulated on the CPU.

A `run` takes what log_mel_spectrogram takes, with tensors on the CPU, and returns its result on the CPU.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from reserve_kernels import log_mel_spectrogram
from reserve_kernels.log_mel.presets import PRESETS
from tests.kernels.numerics import assert_as_good_as_reference

Run = Callable[..., torch.Tensor]


def reference(waveform: torch.Tensor, **arguments) -> torch.Tensor:
    """The result in the dtype of the arguments by the reference."""
    return log_mel_spectrogram(waveform, backend="reference", **arguments)


def noise(*shape: int) -> torch.Tensor:
    """Uniform from -1 to 1, so that the largest error is not that of the one loudest sample."""
    return 2 * torch.rand(shape) - 1


def check_plan(run: Run, playback_speed: int, pad_mode: str, out_dtype: torch.dtype) -> None:
    """Several clips, ends included, are as good as the reference in float32."""
    waveform = torch.randn(3, 20011)
    arguments = {"playback_speed": playback_speed, "pad_mode": pad_mode}
    truth = reference(waveform.double(), **arguments)
    out = run(waveform, out_dtype=out_dtype, **arguments)
    assert_as_good_as_reference(out, truth, reference(waveform, **arguments).to(out_dtype))


def check_ragged(run: Run, playback_speed: int, pad_mode: str, out_dtype: torch.dtype) -> None:
    """Clips of any length in one buffer, empty ones and one of a single sample, with the column of the speed."""
    lengths = [4000, 1, 0, 12000, 588, 0]
    waveform, offsets = torch.randn(sum(lengths)), torch.tensor([0, *lengths]).cumsum(0)
    arguments = {"playback_speed": playback_speed, "pad_mode": pad_mode, "append_speed": True}
    out = run(waveform, offsets=offsets, max_samples=12000, out_dtype=out_dtype, **arguments)
    assert out.shape == (6, 1 + 12000 // (588 * playback_speed), 65)
    outs, truths, plains = [], [], []
    for c, clip in enumerate(waveform.split(lengths)):
        frames = 1 + len(clip) // (588 * playback_speed) if len(clip) else 0
        assert not out[c, frames:].any()
        if frames:
            assert (out[c, :frames, 64] == playback_speed).all()
            outs.append(out[c, :frames])
            truths.append(reference(clip.double(), **arguments))
            plains.append(reference(clip, **arguments).to(out_dtype))
    # Together: the clip of one sample has too few different values to compare largest errors.
    assert_as_good_as_reference(*(torch.cat(each) for each in (outs, truths, plains)))


def check_offsets_beyond_the_waveform(run: Run) -> None:
    """A GPU does not validate the values: they must cause no out-of-bounds read and not change other clips."""
    waveform = torch.randn(3000)
    out = run(waveform, offsets=torch.tensor([-(2**40), 2000, 2**40, 1000, 3000]), max_samples=3000)
    assert out.isfinite().all()
    torch.testing.assert_close(out[3, :4], reference(waveform[1000:]), atol=1e-5, rtol=1e-5)


def check_bad_samples(run: Run, value: float) -> None:
    """A NaN or infinite sample makes exactly its frames NaN."""
    waveform = torch.randn(20000)
    waveform[10000] = value
    out = run(waveform, pad_mode="constant")
    touched = [-768 <= 10000 - f * 588 < 768 for f in range(out.shape[0])]
    assert out.isnan().all(-1).tolist() == touched
    assert (~out.isfinite()).any(-1).tolist() == touched


def check_any_samples(run: Run, samples: int) -> None:
    """Short clips are all padding."""
    waveform = noise(64, samples)
    assert_as_good_as_reference(run(waveform), reference(waveform.double()), reference(waveform))


def check_bands(run: Run, n_mels: int, f_min: float, hop_length: int, *, clips: int = 2, offset: float = 0.1) -> None:
    """Any number of bands, and hops from two samples to a whole window."""
    waveform = noise(clips, 5000)
    arguments = {"n_mels": n_mels, "f_min": f_min, "hop_length": hop_length, "offset": offset}
    truth, plain = (reference(x, **arguments) for x in (waveform.double(), waveform))
    assert_as_good_as_reference(run(waveform, **arguments), truth, plain)


def check_front_end(run: Run, preset: str, **change) -> None:
    """Another front end, with an offset that limits what the logarithm magnifies."""
    arguments = {"preset": preset, **change}
    if PRESETS[preset].arguments.get("log") != "none":
        arguments |= {"log": "ln", "offset": 0.1}
    waveform = noise(3, 20011)
    truth, plain = (reference(x, **arguments) for x in (waveform.double(), waveform))
    assert_as_good_as_reference(run(waveform, **arguments), truth, plain)


def check_size(run: Run, n_fft: int) -> None:
    """Transforms of any passes, odd ones too, with a hop that is no divisor of anything."""
    arguments = {"n_fft": n_fft, "hop_length": n_fft // 3 + 1, "sample_rate": 16000.0, "f_min": 0.0, "f_max": 8000.0}
    arguments |= {"n_mels": 10, "mel_scale": "kaldi"}
    waveform = noise(2, 40 * (n_fft // 3 + 1))
    truth, plain = (reference(x, **arguments) for x in (waveform.double(), waveform))
    assert_as_good_as_reference(run(waveform, **arguments), truth, plain)


def check_padding(run: Run, pad_mode: str, samples: int) -> None:
    """Padding that is longer than the clip, and a mean and pre-emphasis of what it repeats."""
    arguments = {"preset": "kaldi", "framing": "kaldi_centered", "pad_mode": pad_mode, "offset": 10.0, "hop_length": 50}
    waveform = noise(64, samples)
    truth, plain = (reference(x, **arguments) for x in (waveform.double(), waveform))
    assert_as_good_as_reference(run(waveform, **arguments), truth, plain)


def check_dtype(run: Run, dtype: torch.dtype, bands_first: bool) -> None:
    """Samples of 16 bits in clips of any length, and bands that come first."""
    lengths = [4000, 1, 0, 12000, 160, 0]
    waveform, offsets = noise(sum(lengths)), torch.tensor([0, *lengths]).cumsum(0)
    waveform = (waveform * 32767).to(dtype) if dtype == torch.int16 else waveform.to(dtype)
    arguments = {"preset": "vggish", "framing": "centered", "bands_first": bands_first, "offset": 0.1}
    arguments |= {"offsets": offsets, "max_samples": 12000}
    exact = waveform.double() / 32768 if dtype == torch.int16 else waveform.double()
    truth, plain = (reference(x, **arguments) for x in (exact, exact.float()))
    assert_as_good_as_reference(run(waveform, out_dtype=torch.float32, **arguments), truth, plain)


def check_nothing(run: Run) -> None:
    """No clip, and clips without a sample."""
    assert run(torch.empty(0, 3000)).shape == (0, 6, 64)
    arguments = {"max_samples": 1200, "append_speed": True}
    out = run(torch.empty(0), offsets=torch.zeros(3, dtype=torch.int32), **arguments)
    assert torch.equal(out, torch.zeros(2, 3, 65))
    assert run(torch.empty(0), offsets=torch.zeros(1, dtype=torch.int64), **arguments).shape == (0, 3, 65)


CASES = {
    **{
        f"{name}, speed {speed}, {pad_mode}, {str(dtype).removeprefix('torch.')}": (check, (speed, pad_mode, dtype))
        for name, check in [("plan", check_plan), ("ragged", check_ragged)]
        for speed in (1, 2, 3)
        for pad_mode in ("reflect", "constant")
        for dtype in (torch.float32, torch.bfloat16, torch.float16)
    },
    "offsets beyond the waveform": (check_offsets_beyond_the_waveform, ()),
    **{f"a sample is {value}": (check_bad_samples, (value,)) for value in (float("nan"), float("inf"), -float("inf"))},
    **{f"{samples} samples": (check_any_samples, (samples,)) for samples in (1, 2, 587, 588, 767, 769)},
    # Many clips or an offset of 10 for the reasons that test_log_mel_native gives.
    "one band": (functools.partial(check_bands, clips=64), (1, 20.0, 588)),
    "1024 bands": (functools.partial(check_bands, offset=10.0), (1024, 20.0, 588)),
    "130 bands from bin 0, hop 2": (check_bands, (130, 0.0, 2)),
    "hop of a frame": (check_bands, (64, 20.0, 1536)),
    **{f"front end {preset}": (check_front_end, (preset,)) for preset in PRESETS},
    "range": (functools.partial(check_front_end, dynamic_range=2.0), ("whisper",)),
    "frames apart": (functools.partial(check_front_end, hop_length=1001), ("kaldi",)),
    **{f"{n_fft} points": (check_size, (n_fft,)) for n_fft in (24, 225, 375, 1000, 1875, 2048, 4374, 6561, 8192)},
    **{
        f"{pad_mode}, {samples} samples": (check_padding, (pad_mode, samples))
        for pad_mode in ("reflect", "constant", "replicate", "circular", "symmetric")
        for samples in (1, 70, 1000)
    },
    **{
        f"{str(dtype).removeprefix('torch.')} samples, bands {'first' if first else 'last'}": (
            check_dtype,
            (dtype, first),
        )
        for dtype in (torch.int16, torch.float16, torch.bfloat16)
        for first in (False, True)
    },
    "nothing": (check_nothing, ()),
}
"""Name -> the check and its arguments after `run`."""
