"""The native limit to a range below each clip's largest value, against the same in PyTorch."""

from __future__ import annotations

import itertools
import math
import threading

import pytest
import torch

from reserve_kernels import log_mel_spectrogram, native
from reserve_kernels.log_mel.arguments import settings_of
from reserve_kernels.log_mel.native import _limit_range, constants, problem_of
from tests.kernels.log_mel_cases import noise
from tests.kernels.test_log_mel_native import on_isa

pytestmark = pytest.mark.skipif(native.cpu_unavailable() is not None, reason=str(native.cpu_unavailable()))
ISAS = [on_isa(isa) for isa in ("baseline", "avx2", "avx512")]
LENGTHS = [700, 0, 3, 1234, 50]
"""Samples of clips: some rows of an output for the longest are unused."""
LAYOUTS = {"rows": {}, "column of the speed": {"append": 100.0}, "bands first": {"bands_first": True}}
SMALL = {"n_fft": 40, "win_length": 40, "hop_length": 10, "framing": "inside", "log": "ln"}
every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
every_sign = pytest.mark.parametrize("below", [0.7, -0.7])


def limited(waveform, below: float, *, isa="auto", threads=1, offsets=None, append=None, **change):
    """Values limited by the library, and by PyTorch afterwards."""
    change = SMALL | {"n_mels": 13} | change | {"dynamic_range": abs(below), "out_scale": math.copysign(1.0, below)}
    settings, _ = settings_of("reserve", change)
    shape = settings.out_shape(waveform.shape, offsets, max(LENGTHS), columns=int(append is not None))
    ours, expected = torch.empty(2, *shape).unbind()
    for out, limit in ((ours, below), (expected, None)):
        problem = problem_of(waveform, settings, offsets, out, append, constants(settings, waveform.device))
        native.library().log_mel_cpu(problem, threads, isa, limit)
    before = expected.clone()
    _limit_range(expected, settings, offsets, max(LENGTHS))
    assert before.isnan().any() or not torch.equal(before, expected)
    return ours, expected


@pytest.mark.parametrize("isa", ISAS)
@every_sign
@pytest.mark.parametrize("bands_first", [False, True])
@pytest.mark.parametrize(("clips", "frames", "n_mels"), [(2, 3, 5), (1, 7, 64), (3, 41, 33), (1, 2000, 130)])
def test_each_clip_has_its_own_limit(isa, below, bands_first, clips, frames, n_mels):
    waveform = 30 * noise(clips, 40 + 10 * (frames - 1)) * torch.logspace(0, 3, clips)[:, None]
    ours, expected = limited(waveform, below, isa=isa, bands_first=bands_first, n_mels=n_mels)
    assert torch.equal(ours, expected)


@every_sign
@every_layout
@pytest.mark.parametrize("isa", ISAS)
def test_rows_beyond_a_clip_and_the_speed_do_not_count(isa, layout, below):
    """They are 0, which is more than the largest or less than the smallest value of these clips."""
    offsets = torch.tensor([0, *itertools.accumulate(LENGTHS)])
    shift = {"out_shift": math.copysign(50.0, -below)}
    ours, expected = limited(30 * noise(sum(LENGTHS)), below, isa=isa, offsets=offsets, **layout, **shift)
    assert torch.equal(ours, expected)


@pytest.mark.parametrize("isa", ISAS)
@every_sign
@every_layout
@pytest.mark.parametrize("place", [0, 5, 300, 699])
def test_nan_spreads_over_its_clip_alone(isa, below, layout, place):
    waveform = noise(2, 700)
    waveform[1, place] = math.nan
    ours, expected = limited(waveform, below, isa=isa, **layout)
    torch.testing.assert_close(ours, expected, rtol=0, atol=0, equal_nan=True)
    values = ours[1] if "append" not in layout else ours[1, :, :-1]
    assert values.isnan().all()
    assert not ours[0].isnan().any()


@every_layout
@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads_do_not_change_the_result(threads, layout):
    change = {"n_fft": 512, "win_length": 512}
    waveform = noise(3, 20_000)
    alone, expected = limited(waveform, 2.0, **change, **layout)
    for _ in range(20):
        ours, _ = limited(waveform, 2.0, threads=threads, **change, **layout)
        assert torch.equal(ours, alone)
    assert torch.equal(alone, expected)


def test_calls_at_once_do_not_disturb_each_other():
    """More threads than cores: those that wait for others' rows let them run."""
    waveform = noise(2, 60_000)
    _, expected = limited(waveform, 2.0, n_fft=512, win_length=512)
    outs = []

    def work():
        outs.extend(limited(waveform, 2.0, threads=4, n_fft=512, win_length=512)[0] for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outs) == 20
    assert all(torch.equal(out, expected) for out in outs)


def test_the_op_has_it():
    out = log_mel_spectrogram(torch.cat([noise(16_000), torch.zeros(16_000)]), preset="whisper", backend="native")
    assert float(out.max() - out.min()) == pytest.approx(2.0)  # 8 decades, scaled by a quarter


def test_half_precision_is_limited_before_it_is_rounded():
    """The library refuses to limit what is already rounded."""
    settings, _ = settings_of("whisper", {})
    x = noise(4000)
    out = torch.empty(settings.out_shape(x.shape), dtype=torch.bfloat16)
    problem = problem_of(x, settings, None, out, None, constants(settings, x.device))
    with pytest.raises(ValueError, match="log_mel_cpu"):
        native.library().log_mel_cpu(problem, 1, below=1.0)
    wide = log_mel_spectrogram(x, preset="whisper", backend="native")
    half = log_mel_spectrogram(x, preset="whisper", backend="native", out_dtype=torch.bfloat16)
    assert torch.equal(half, wide.to(torch.bfloat16))
