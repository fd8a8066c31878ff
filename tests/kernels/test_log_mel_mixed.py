"""The native code of transforms whose passes are chosen at run time. test_log_mel_front_ends has every parameter."""

from __future__ import annotations

import functools
import math
import resource
import threading

import pytest
import torch

from reserve_kernels import log_mel_spectrogram, native
from reserve_kernels.log_mel.arguments import settings_of
from reserve_kernels.log_mel.native import constants, log_mel_native, problem_of
from reserve_kernels.log_mel.presets import PRESETS
from reserve_kernels.log_mel.reference import as_numbers, log_mel_reference
from reserve_kernels.log_mel.settings import LogMelSettings
from tests.kernels.log_mel_cases import noise
from tests.kernels.numerics import assert_as_good_as_reference
from tests.kernels.test_log_mel_native import ISAS, on

pytestmark = [
    pytest.mark.skipif(native.cpu_unavailable() is not None, reason=str(native.cpu_unavailable())),
    pytest.mark.filterwarnings("ignore:log_mel_spectrogram. .* of the n_mels:UserWarning"),
]


def only_factors_2_3_5(n: int) -> bool:
    for factor in (2, 3, 5):
        while n % factor == 0:
            n //= factor
    return n == 1


SIZES = [n for n in range(2, 8193) if only_factors_2_3_5(n)]
# Every radix as the only, the first and the last pass, many passes, odd transforms, and presets'.
CHOSEN = [2, 4, 8, 9, 10, 12, 25, 30, 125, 200, 243, 256, 375, 400, 480, 512, 640, 750, 1000, 1024, 2025, 2048, 4374]
CHOSEN += [5184, 6250, 6561, 7776, 8000, 8192]


def settings(n_fft: int, **change) -> LogMelSettings:
    arguments = {
        "sample_rate": 16000.0,
        "n_fft": n_fft,
        "hop_length": max(1, n_fft // 3),
        "f_max": 8000.0,
        "n_mels": 20,
    }
    return settings_of("reserve", arguments | {"f_min": 0.0, "mel_scale": "kaldi", "mel_norm": "none"} | change)[0]


def assert_good(waveform: torch.Tensor, s: LogMelSettings, code: str, *, draws: int = 1, **arguments) -> None:
    """`draws` of the problem show what the reference loses; the others begin the clips elsewhere."""
    alike = []
    for draw in range(draws):
        x = as_numbers(waveform).roll(17 * draw, -1)
        alike.append((log_mel_reference(x.double(), s, **arguments), log_mel_reference(x, s, **arguments)))
    assert_as_good_as_reference(log_mel_native(waveform, s, run=on(code), **arguments), *alike[0], alike)


@pytest.mark.parametrize("n_fft", CHOSEN)
@pytest.mark.parametrize("code", ISAS)
def test_every_radix_matches_float64(code, n_fft):
    # Twice as many frames as lanes, and some at the ends.
    assert_good(noise(2, 16 * max(1, n_fft // 3) + 5), settings(n_fft), code)


@pytest.mark.parametrize("code", ["auto", "emulated"])
def test_every_size_has_a_transform(code):
    worst = 0.0
    for n_fft in SIZES:
        s = settings(n_fft, hop_length=n_fft, n_mels=5)
        x = noise(2 * n_fft)
        truth = log_mel_reference(x.double(), s)
        worst = max(worst, float((log_mel_native(x, s, run=on(code)) - truth).abs().max()))
    assert worst < 1e-5


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("code", ISAS)
def test_every_front_end_matches_float64(code, preset):
    s, _ = settings_of(preset, {})
    # The logarithm magnifies the rounding of bands that are small beside the rest of their frame: an offset limits it.
    if s.log != "none":
        s, _ = settings_of(preset, {"offset": 0.1, "log": "ln"})
    assert_good(noise(2, 20011), s, code, draws=4)


@pytest.mark.parametrize("code", ISAS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int16])
@pytest.mark.parametrize("samples", [3, 399, 9001])
def test_every_dtype_is_read_as_it_is(dtype, samples, code):
    x = noise(3, samples)
    x = (x * 32767).to(dtype) if dtype == torch.int16 else x.to(dtype)
    s = settings(400, hop_length=160, remove_dc=True, preemphasis=0.97, sample_scale=3.0)
    assert_good(x, s, code)


@pytest.mark.parametrize("code", ISAS)
def test_float16_has_all_its_values(code):
    every = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16).view(torch.float16)
    x = every[every.isfinite()]
    # One sample a frame: its amplitude is the sample's.
    s = settings(4, win_length=1, hop_length=1, framing="inside_window", n_mels=1, power=1, log="none")
    assert s.window_for(x.float()).item() == 1
    out = log_mel_native(x, s, run=on(code))
    assert torch.equal(out, log_mel_native(x.float(), s, run=on(code)))
    # Positive and negative ones have the same.
    assert torch.unique(out).numel() > 31_000


@pytest.mark.parametrize("code", ISAS)
@pytest.mark.parametrize("pad_mode", ["reflect", "constant", "replicate", "circular", "symmetric"])
@pytest.mark.parametrize("samples", [1, 2, 3, 50, 1000])
def test_padding_goes_on_for_ever(samples, pad_mode, code):
    s = settings(1000, hop_length=100, pad_mode=pad_mode, win_length=970, offset=10.0)
    # Largest errors are comparable only over many different values, and where the logarithm does not magnify them.
    assert_good(noise(64 if samples < 50 else 8, samples), s, code)


@pytest.mark.parametrize("code", ISAS)
@pytest.mark.parametrize("hop_length", [1, 7, 399, 400, 401, 1900])
@pytest.mark.parametrize("bands_first", [False, True])
def test_any_hop(hop_length, bands_first, code):
    s = settings(500, win_length=400, hop_length=hop_length, bands_first=bands_first)
    assert_good(noise(2, 37 * hop_length + 450), s, code)


@pytest.mark.parametrize("code", ISAS)
@pytest.mark.parametrize("out_dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dynamic_range", [math.inf, 1.0])
def test_bands_first_is_the_transpose(code, out_dtype, dynamic_range):
    lengths = [4000, 0, 5, 9000, 161]
    x, offsets = noise(sum(lengths)), torch.tensor([0, *lengths]).cumsum(0)
    run = functools.partial(log_mel_native, x, offsets=offsets, max_samples=9000, out_dtype=out_dtype, run=on(code))
    rows = run(settings(400, hop_length=160, dynamic_range=dynamic_range))
    columns = run(settings(400, hop_length=160, dynamic_range=dynamic_range, bands_first=True))
    assert columns.is_contiguous()
    assert torch.equal(columns, rows.transpose(1, 2))


@pytest.mark.parametrize("code", ISAS)
def test_a_constant_has_no_mean_left(code):
    x = torch.full((1, 16000), 0.3)
    s = settings_of("kaldi", {"log": "none", "preemphasis": 0.0})[0]
    assert not log_mel_native(x, s, run=on(code)).any()


@pytest.mark.parametrize("code", ISAS)
def test_a_sample_after_the_window_is_not_read(code):
    # Rows are read four columns at a time: NaN beyond the window's 397 must not show, in place or staged.
    s = settings(512, win_length=397, hop_length=397, framing="inside_window")
    x = noise(40 * 397)
    x[397 * 20] = math.nan
    out = log_mel_native(x, s, run=on(code))
    assert out.isnan().any(-1).nonzero().flatten().tolist() == [20]


def test_threads_do_not_change_a_bit():
    s, x, before = settings_of("kaldi", {})[0], torch.randn(4, 160000), torch.get_num_threads()
    try:
        outs = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            outs.append(log_mel_native(x, s))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[0], outs[2])


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize(("n_fft", "rows"), [(8192, 1), (8192, 17), (8192, 40), (8192, 100), (512, 577), (512, 900)])
def test_threads_write_each_row_and_nothing_else(n_fft, rows, threads):
    s = settings(n_fft, hop_length=1, framing="inside")
    x = noise(1, n_fft + rows - 1)
    beside = torch.full(((rows + 70) * s.n_mels,), 7.0)
    out = beside[: rows * s.n_mels].view(1, rows, s.n_mels)
    native.library().log_mel_cpu(problem_of(x, s, None, out, None, constants(s, x.device)), threads)
    assert torch.equal(out, log_mel_native(x, s, run=on("auto")))
    assert (beside[rows * s.n_mels :] == 7.0).all()


def test_threads_that_need_a_new_plan_at_once_share_it():
    # Of sizes that no other test of this process uses.
    sizes = [n for n in SIZES if n not in CHOSEN][40:120]
    x, start, outs = noise(20000), threading.Barrier(4), [[] for _ in range(4)]

    def work(mine: list) -> None:
        start.wait()
        mine.extend(log_mel_native(x, settings(n)) for n in sizes)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in outs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, *results in zip(sizes, *outs, strict=True):
        assert all(torch.equal(result, results[0]) for result in results), n


def test_an_hour_takes_no_more_memory_than_its_result():
    x = torch.zeros(3600 * 16000, dtype=torch.int16)
    x[::160] = 1000
    log_mel_spectrogram(x[:16000], preset="kaldi", backend="native")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    out = log_mel_spectrogram(x, preset="kaldi", backend="native")
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert out.shape == (359998, 80)
    assert grown < out.nbytes + (8 << 20)
    torch.testing.assert_close(out[-1], out[1000])
