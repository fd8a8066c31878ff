from __future__ import annotations

import math

import pytest
import torch

from reserve_kernels import log_mel_spectrogram, native
from reserve_kernels.log_mel.arguments import settings_of
from reserve_kernels.log_mel.availability import not_fused_on_cuda
from reserve_kernels.log_mel.filters import mel_filterbank
from reserve_kernels.log_mel.native import constants, log_mel_native, problem_of
from reserve_kernels.log_mel.reference import log_mel_reference
from reserve_kernels.log_mel.settings import LogMelSettings
from tests.kernels.log_mel_cases import CASES, noise
from tests.kernels.numerics import assert_as_good_as_reference

pytestmark = [
    pytest.mark.skipif(native.cpu_unavailable() is not None, reason=str(native.cpu_unavailable())),
    pytest.mark.filterwarnings("ignore:log_mel_spectrogram. .* of the n_mels:UserWarning"),
]


def settings(**change) -> LogMelSettings:
    defaults = {"pad_mode": "reflect", "sample_rate": 22050.0, "n_fft": 1536, "hop_length": 588, "n_mels": 64}
    return LogMelSettings(**(defaults | {"f_min": 20.0, "f_max": 11025.0, "offset": 0.1} | change))


def on_isa(isa: str):
    """`isa` as a test's parameter, skipped if this processor lacks it."""
    available = native.cpu_unavailable() is None and native.library().has_isa(isa)
    return pytest.param(isa, marks=[] if available else pytest.mark.skip(reason=f"needs {isa}"))


# Each instruction set with its own code, and the code of the CUDA kernel.
ISAS = [on_isa(isa) for isa in ("baseline", "avx2", "avx512")] + ["emulated"]


def on(code: str):
    """How to run a problem: with an instruction set, or "emulated" as the CUDA kernel would."""
    library = native.library()
    return library.log_mel_emulated if code == "emulated" else lambda problem: library.log_mel_cpu(problem, 1, code)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("frames", [4, 16, 17, 40])
def test_clips_without_distance_are_one_clip_over_and_over(isa, frames):
    s, x = settings(), torch.randn(40 * 588)
    out = torch.empty(5, frames, 64)
    problem = problem_of(x, s, None, out, None, constants(s, x.device))
    problem.clip_stride = 0
    on(isa)(problem)
    expected = log_mel_reference(x, s)[:frames].expand(5, -1, -1)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n_fft", [1536, 3072, 4608])
@pytest.mark.parametrize("pad_mode", ["reflect", "constant"])
def test_every_instruction_set_and_plan_matches_float64(isa, n_fft, pad_mode):
    s = settings(n_fft=n_fft, hop_length=588 * n_fft // 1536, pad_mode=pad_mode)
    x = torch.randn(3, 20011)
    truth, plain = log_mel_reference(x.double(), s), log_mel_reference(x, s)
    assert_as_good_as_reference(log_mel_native(x, s, run=on(isa)), truth, plain)


# Largest errors of two methods are comparable only over many different values: one sample gives few, one band one a
# frame. The logarithm magnifies the rounding of bands that are small beside the rest of their frame; an offset of 10
# limits that.
@pytest.mark.parametrize(
    ("clips", "samples", "change"),
    [
        (64, 1, {}),  # one sample, reflected onto itself
        (64, 2, {}),  # the shortest period
        (2, 767, {}),  # shorter than the padding
        (2, 768, {"hop_length": 1}),  # hundreds of frames, all at an end
        (2, 5000, {"hop_length": 7000}),  # one frame
        (64, 5000, {"n_mels": 1}),  # one band over everything
        (2, 50000, {"n_mels": 13, "f_min": 4000.0, "f_max": 4100.0, "offset": 10.0}),  # bands without a bin
        (2, 5000, {"n_mels": 2, "f_min": 4000.0, "f_max": 4001.0}),  # no band has a bin
        (2, 5000, {"n_mels": 130, "f_min": 0.0}),  # more bands than a power of two, from bin 0 on
        (2, 5000, {"n_mels": 80, "sample_rate": 16000.0, "f_max": 8000.0}),
        (2, 5000, {"offset": 1e-6}),
    ],
)
@pytest.mark.parametrize("pad_mode", ["reflect", "constant"])
@pytest.mark.parametrize("code", ["auto", "emulated"])
def test_any_hop_bands_and_length_matches_float64(code, clips, samples, change, pad_mode):
    s = settings(pad_mode=pad_mode, **change)
    if code == "emulated" and not_fused_on_cuda(s):
        pytest.skip(str(not_fused_on_cuda(s)))
    x = noise(clips, samples)
    truth, plain = log_mel_reference(x.double(), s), log_mel_reference(x, s)
    assert_as_good_as_reference(log_mel_native(x, s, run=on(code)), truth, plain)


@pytest.mark.parametrize("code", ["auto", "emulated"])
def test_a_faint_tone_beside_a_loud_one_keeps_its_digits(code):
    # Bins k and n_fft / 2 - k are unpacked together: the loud one must not drown the faint one.
    t = torch.arange(6000, dtype=torch.float64) / 22050
    x = torch.sin(2 * math.pi * 1000 * t) + 1e-4 * torch.sin(2 * math.pi * (11025 - 1000) * t)
    s = settings(offset=1e-9)
    truth, plain = log_mel_reference(x.float().double(), s), log_mel_reference(x.float(), s)
    assert_as_good_as_reference(log_mel_native(x.float(), s, run=on(code)), truth, plain)


@pytest.mark.parametrize("frames", [1, 3, 4, 8, 9, 15, 16, 17, 64, 65, 600])
@pytest.mark.parametrize("code", ["auto", "emulated"])
def test_every_frame_of_any_number_is_written(frames, code):
    s = settings()
    x = torch.randn((frames - 1) * 588 + 1)
    out = log_mel_native(x, s, run=on(code))
    assert out.shape == (frames, 64)
    torch.testing.assert_close(out, log_mel_reference(x, s), atol=1e-5, rtol=1e-5)


def test_threads_do_not_change_a_bit():
    s, x, before = settings(), torch.randn(8, 110250), torch.get_num_threads()
    try:
        outs = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            outs.append(log_mel_native(x, s))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[0], outs[2])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("isa", ISAS)
def test_a_bad_sample_makes_exactly_its_frames_nan(isa, value):
    # 104 Hz wide and far from the band of interest: the sample shows although no band sees all bins.
    s, x = settings(n_mels=2, f_min=3000.0, f_max=4000.0, pad_mode="constant"), torch.randn(20000)
    x[10000] = value
    out = log_mel_native(x, s, run=on(isa))
    touched = [-768 <= 10000 - f * 588 < 768 for f in range(out.shape[0])]
    assert out.isnan().all(-1).tolist() == touched
    assert (~out.isfinite()).any(-1).tolist() == touched


@pytest.mark.parametrize("code", ["auto", "emulated"])
def test_silence_is_exactly_zero(code):
    assert log_mel_native(torch.zeros(110250), settings(), run=on(code)).abs().max() == 0


def emulated(
    waveform,
    *,
    preset="reserve",
    playback_speed=1,
    offsets=None,
    max_samples=0,
    append_speed=False,
    out_dtype=torch.float32,
    **change,
) -> torch.Tensor:
    """log_mel_spectrogram by the code of the CUDA kernel."""
    s, _ = settings_of(preset, change, playback_speed)
    append = float(playback_speed) if append_speed else None
    return log_mel_native(waveform, s, offsets, max_samples, out_dtype=out_dtype, append=append, run=on("emulated"))


@pytest.mark.parametrize(("check", "arguments"), CASES.values(), ids=CASES.keys())
def test_the_cuda_code_emulated(check, arguments):
    check(emulated, *arguments)


def test_parameters_that_the_cuda_code_does_not_support_are_named():
    assert "no other prime factors than 2, 3 and 5; got 1534" in str(not_fused_on_cuda(settings(n_fft=1534)))
    assert "n_mels must be at most 1024" in str(not_fused_on_cuda(settings(n_mels=1025)))
    s, x = settings(n_mels=1025), torch.randn(3000)
    with pytest.raises(RuntimeError, match="log_mel_emulated: not supported"):
        log_mel_native(x, s, run=on("emulated"))


def test_more_blocks_than_a_launch_takes_are_refused():
    s, x = settings(), torch.randn(3000)
    problem = problem_of(x, s, None, torch.empty(s.out_shape(x.shape)), None, constants(s, x.device))
    problem.frames = 8 * 2**31
    with pytest.raises(RuntimeError, match="log_mel_emulated: not supported"):
        native.library().log_mel_emulated(problem)


def test_filters_are_stored_whole():
    s = settings(n_mels=40, f_max=8000.0)
    held = constants(s, torch.device("cpu"))
    dense = torch.zeros(40, 769)
    for m in range(40):
        low, high = int(held.band_row[m]), int(held.band_row[m + 1])
        dense[m, int(held.band_start[m]) : int(held.band_start[m]) + high - low] = held.band_weight[low:high]
    assert torch.equal(dense, mel_filterbank(22050.0, 1536, 40, 20.0, 8000.0).float())


@pytest.mark.parametrize("n_fft", [511, 8200])
def test_transforms_of_other_sizes_run_the_reference_or_say_so(n_fft):
    x = torch.randn(9000)
    assert torch.equal(log_mel_spectrogram(x, n_fft=n_fft), log_mel_spectrogram(x, n_fft=n_fft, backend="reference"))
    with pytest.raises(
        RuntimeError, match=r"backend 'native' cannot run: n_fft \* playback_speed must be at most 8192"
    ):
        log_mel_spectrogram(x, n_fft=n_fft, backend="native")
    with pytest.raises(RuntimeError, match="it computes in float32"):
        log_mel_spectrogram(x.double(), backend="native")


BAD_CALLS = {
    "n_fft": ({"n_fft": 1022}, RuntimeError),
    "window_length": ({"window_length": 1537}, ValueError),
    "no window": ({"window_length": 0}, ValueError),
    "start": ({"start": -(2**34)}, ValueError),
    "frame_extra": ({"frame_extra": 2**62}, ValueError),
    "in_dtype": ({"in_dtype": 4}, ValueError),
    "pad_mode": ({"pad_mode": 5}, ValueError),
    "power": ({"power": 3}, ValueError),
    "flag": ({"remove_dc": 2}, ValueError),
    "a column with bands first": ({"append": 1, "bands_first": 1}, ValueError),
    "hop_length": ({"hop_length": 0}, ValueError),
    "n_mels": ({"n_mels": 0}, ValueError),
    "frames": ({"frames": -1}, ValueError),
    "clip_stride back": ({"clips": 2, "clip_stride": -1}, ValueError),
    "clip_stride overflow": ({"clips": 3, "clip_stride": 2**61}, ValueError),
    "samples": ({"samples": 2**62}, ValueError),
    "overflow": ({"frames": 2**62, "clips": 8}, ValueError),
    "window": ({"window": None}, ValueError),
    "out": ({"out": None}, ValueError),
    "out_dtype": ({"out_dtype": 7}, ValueError),
}


@pytest.mark.parametrize(("change", "error"), BAD_CALLS.values(), ids=BAD_CALLS.keys())
def test_the_c_interface_rejects_unsupported_problems(change, error):
    s, x = settings(), torch.randn(3000)
    out = torch.empty(s.out_shape(x.shape))
    problem = problem_of(x, s, None, out, None, constants(s, x.device))
    for name, value in change.items():
        setattr(problem, name, value)
    with pytest.raises(error, match="log_mel_cpu: "):
        native.library().log_mel_cpu(problem, 1)


@pytest.mark.parametrize("offsets", [[0, 5, 3], [-1, 5], [0, 4000]])
def test_the_c_interface_checks_offsets(offsets):
    s, x, offsets = settings(), torch.randn(3000), torch.tensor(offsets)
    out = torch.empty(s.out_shape(x.shape, offsets, 3000))
    with pytest.raises(ValueError, match="invalid argument"):
        native.library().log_mel_cpu(problem_of(x, s, offsets, out, None, constants(s, x.device)), 1)
