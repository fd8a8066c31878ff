"""The native limit to a range below each clip's largest value, against the same in PyTorch."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from reserve_kernels import log_mel_spectrogram, native
from reserve_kernels.log_mel.arguments import settings_of
from reserve_kernels.log_mel.native import _limit_range, constants, problem_of
from tests.kernels.test_log_mel_native import on_isa

pytestmark = pytest.mark.skipif(native.cpu_unavailable() is not None, reason=str(native.cpu_unavailable()))
ISAS = [on_isa(isa) for isa in ("baseline", "avx2", "avx512")]
LENGTHS = [700, 0, 3, 1234, 50]
"""Samples of clips: some rows of an output for the longest are unused."""
SMALL = {"n_fft": 40, "win_length": 40, "hop_length": 10, "framing": "inside", "pad_mode": "constant"}


def limited(values, below: float, *, isa="auto", threads=3, offsets=None, append=None, bands_first=False):
    """What the library and PyTorch make of `values`, which stand for the output of SMALL."""
    n_mels = values.shape[-2] if bands_first else values.shape[-1] - (append is not None)
    sign = math.copysign(1.0, below)
    change = {"n_mels": n_mels, "bands_first": bands_first, "dynamic_range": abs(below), "out_scale": sign}
    settings, _ = settings_of("reserve", SMALL | change)
    if offsets is None:
        waveform = torch.zeros(values.shape[0], 40 + 10 * (values.shape[1] - 1))
    else:
        waveform = torch.zeros(sum(LENGTHS))
    ours, expected = values.clone(), values.clone()
    problem = problem_of(waveform, settings, offsets, ours, append, constants(settings, waveform.device))
    native.library().log_mel_limit_cpu(problem, below, threads, isa)
    _limit_range(expected, settings, offsets, max(LENGTHS))
    return ours, expected


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("below", [0.7, -0.7])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (1, 7, 64), (3, 41, 33), (1, 2000, 300)])
def test_each_clip_has_its_own_limit(isa, below, shape):
    ours, expected = limited(torch.randn(shape), below, isa=isa)
    assert torch.equal(ours, expected)


@pytest.mark.parametrize("below", [0.7, -0.7])
@pytest.mark.parametrize("layout", ["rows", "column of the speed", "bands first"])
def test_frames_beyond_a_clip_and_the_speed_do_not_count(layout, below):
    # (1234 - 40) // 10 + 1 frames of 13 bands; what lies beyond would be the largest or smallest by far.
    offsets = torch.tensor([0, *itertools.accumulate(LENGTHS)])
    append = 100.0 if layout == "column of the speed" else None
    values = torch.randn(len(LENGTHS), 120, 13)
    own = [max(0, (length - 40) // 10 + 1) for length in LENGTHS]
    for clip, frames in zip(values, own, strict=True):
        clip[frames:] = 0.0
        clip[:frames] += 5 * math.copysign(1.0, below)
    if append is not None:
        values = torch.cat([values, torch.full((len(LENGTHS), 120, 1), append)], -1)
    bands_first = layout == "bands first"
    values = values.transpose(1, 2).contiguous() if bands_first else values
    ours, expected = limited(values, below, offsets=offsets, append=append, bands_first=bands_first)
    assert not torch.equal(ours, values)
    assert torch.equal(ours, expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("below", [0.7, -0.7])
@pytest.mark.parametrize("place", [0, 5, 63, 200, 299])
def test_nan_spreads_over_its_clip_alone(isa, below, place):
    values = torch.randn(2, 10, 30)
    values[1].view(-1)[place] = math.nan
    ours, expected = limited(values, below, isa=isa)
    assert ours[1].isnan().all()
    assert torch.equal(ours[0], expected[0])
    assert expected[1].isnan().all()


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinity_is_a_value_like_others(value):
    values = torch.randn(1, 10, 30)
    values[0, 3, 4] = value
    ours, expected = limited(values, 0.7)
    torch.testing.assert_close(ours, expected, rtol=0, atol=0, equal_nan=True)


def test_threads_do_not_change_the_result():
    values = torch.randn(1, 9000, 128)
    results = [limited(values, 2.0, threads=threads) for threads in (1, 2, 7)]
    assert all(torch.equal(ours, expected) for ours, expected in results)
    assert results[0][0].min() == values.max() - 2.0


def test_the_op_uses_it(monkeypatch):
    calls = []
    limit = native.NativeLibrary.log_mel_limit_cpu

    def counted(library, *arguments):
        calls.append(arguments)
        limit(library, *arguments)

    monkeypatch.setattr(native.NativeLibrary, "log_mel_limit_cpu", counted)
    out = log_mel_spectrogram(torch.cat([torch.randn(16_000), torch.zeros(16_000)]), preset="whisper")
    assert len(calls) == 1
    assert float(out.max() - out.min()) == pytest.approx(2.0)  # 8 decades, scaled by a quarter
