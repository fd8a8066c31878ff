from __future__ import annotations

import dataclasses
import functools
import math
import pickle

import numpy as np
import pytest
import torch

from reserve_kernels import backends, log_mel_spectrogram
from reserve_kernels.log_mel.arguments import settings_of
from reserve_kernels.log_mel.filters import mel_filterbank
from reserve_kernels.log_mel.settings import LogMelSettings
from tests.helpers.torch_defaults import torch_defaults
from tests.kernels.contrastive_cases import Ops
from tests.kernels.log_mel_cases import noise
from tests.kernels.numerics import assert_as_good_as_reference

# Every implementation that runs here; "auto" is one of them.
RUNNABLE = [r.backend for r in backends() if r.op == "log_mel_spectrogram" and r.device == "cpu" and not r.reason]
SIGNALS = ["noise", "chirp", "speech", "silence", "short", "noise_2x", "speech_2x"]


@pytest.mark.parametrize("backend", RUNNABLE)
@pytest.mark.parametrize("pad_mode", ["reflect", "constant"])
@pytest.mark.parametrize("signal", SIGNALS)
def test_golden_figures_of_librosa(shared_dir, signal, pad_mode, backend):
    with np.load(shared_dir / "golden" / "log_mel.npz") as golden:
        waveform, expected = golden[f"{signal}/waveform"], golden[f"{signal}/log_mel/{pad_mode}"]
    speed = 2 if "_2x" in signal else 1
    out = log_mel_spectrogram(torch.from_numpy(waveform), playback_speed=speed, pad_mode=pad_mode, backend=backend)
    assert np.abs(out.numpy().T - expected).max() <= 2e-4


@pytest.mark.parametrize("pad_mode", ["reflect", "constant"])
@pytest.mark.parametrize(
    ("samples", "n_fft", "hop", "mels", "f_min", "f_max"),
    [(5000, 1536, 588, 64, 20.0, 11025.0), (900, 400, 160, 80, 0.0, 8000.0), (700, 255, 100, 13, 50.0, 4000.0)],
)
def test_librosa_agrees_for_any_parameters(samples, n_fft, hop, mels, f_min, f_max, pad_mode):
    librosa = pytest.importorskip("librosa")
    scipy_signal = pytest.importorskip("scipy.signal")
    waveform = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    power = librosa.feature.melspectrogram(
        y=waveform,
        sr=22050,
        n_fft=n_fft,
        hop_length=hop,
        window=scipy_signal.windows.hann(n_fft, sym=True),
        center=True,
        pad_mode=pad_mode,
        power=2.0,
        n_mels=mels,
        fmin=f_min,
        fmax=f_max,
    )
    expected = (np.log(power + 0.1) - math.log(0.1)).T
    out = log_mel_spectrogram(
        torch.from_numpy(waveform),
        n_fft=n_fft,
        hop_length=hop,
        n_mels=mels,
        f_min=f_min,
        f_max=f_max,
        pad_mode=pad_mode,
    )
    assert out.shape == expected.shape
    assert np.abs(out.numpy() - expected).max() < 2e-4


@pytest.mark.parametrize("backend", RUNNABLE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(8000,), (3, 4000), (2, 2, 1600), (0, 3000), (64, 1), (2, 769)])
def test_values_and_gradients_match_float64(dtype, shape, backend):
    waveform = noise(*shape).to(dtype)
    truth_in, plain_in, ours_in = waveform.double(), waveform.float(), waveform.clone()
    for t in (truth_in, plain_in, ours_in):
        t.requires_grad_()
    truth, plain = (log_mel_spectrogram(t, backend="reference") for t in (truth_in, plain_in))
    ours = log_mel_spectrogram(ours_in, backend=backend)
    assert_as_good_as_reference(ours, truth.detach(), plain.detach().to(dtype))
    grad = torch.randn_like(truth)
    for out in (truth, plain, ours):
        out.backward(grad.to(out.dtype))
    assert_as_good_as_reference(ours_in.grad, truth_in.grad, plain_in.grad.to(dtype))


@pytest.mark.parametrize("backend", RUNNABLE)
def test_one_sample_alone_is_as_in_a_batch(backend):
    sample = torch.tensor([0.7])
    out = log_mel_spectrogram(sample, backend=backend)
    assert out.shape == (1, 64)
    assert torch.equal(out, log_mel_spectrogram(sample[None], backend=backend)[0])


LENGTHS = [4000, 1, 0, 2500, 588, 0]


@pytest.mark.parametrize("pad_mode", ["reflect", "constant"])
@pytest.mark.parametrize("backend", RUNNABLE)
def test_ragged_clips_are_as_each_alone(backend, pad_mode):
    clips = [torch.randn(n, dtype=torch.float64) for n in LENGTHS]
    waveform = torch.cat(clips).float().requires_grad_()
    offsets = torch.tensor([0, *LENGTHS]).cumsum(0)
    arguments = {"backend": backend, "pad_mode": pad_mode, "append_speed": True}
    out = log_mel_spectrogram(waveform, offsets=offsets, max_samples=4000, **arguments)
    assert out.shape == (6, 7, 65)
    grad = torch.randn_like(out)
    out.backward(grad)
    for c, clip in enumerate(clips):
        frames = 0 if len(clip) == 0 else 1 + len(clip) // 588
        assert not out[c, frames:].any()
        if frames:
            alone = clip.float().requires_grad_()
            expected = log_mel_spectrogram(alone, **arguments)
            torch.testing.assert_close(out[c, :frames], expected, atol=1e-5, rtol=1e-5)
            expected.backward(grad[c, :frames])
            low, high = int(offsets[c]), int(offsets[c + 1])
            torch.testing.assert_close(waveform.grad[low:high], alone.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backend", RUNNABLE)
@pytest.mark.parametrize(
    ("lengths", "max_samples", "frames"),
    [([0, 0], 1200, 3), ([0], 0, 1), ([], 1200, 3)],
    ids=["empty clips", "the longest is empty", "no clip"],
)
def test_clips_without_a_single_sample_have_rows_of_zeros(backend, lengths, max_samples, frames):
    waveform = torch.empty(0, requires_grad=True)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    out = log_mel_spectrogram(
        waveform, offsets=offsets, max_samples=max_samples, append_speed=True, out_dtype=torch.bfloat16, backend=backend
    )
    assert torch.equal(out, torch.zeros(len(lengths), frames, 65, dtype=torch.bfloat16))
    out.sum().backward()
    assert waveform.grad.shape == (0,)


@pytest.mark.parametrize("lengths", [[0, 0], [0, 700], []])
def test_an_odd_n_fft_takes_empty_clips_too(lengths):
    waveform, offsets = torch.randn(sum(lengths), requires_grad=True), torch.tensor([0, *lengths]).cumsum(0)
    out = log_mel_spectrogram(waveform, n_fft=255, hop_length=100, offsets=offsets, max_samples=700)
    assert out.shape == (len(lengths), 7, 64)
    assert [bool(clip.any()) for clip in out] == [n > 0 for n in lengths]
    out.sum().backward()
    assert log_mel_spectrogram(waveform, n_fft=255, offsets=offsets, max_samples=0).shape == (len(lengths), 0, 64)


@pytest.mark.parametrize("backend", RUNNABLE)
def test_longer_clips_than_max_samples_lose_their_last_frames(backend):
    waveform = torch.randn(5000)
    out = log_mel_spectrogram(waveform, offsets=torch.tensor([0, 5000]), max_samples=1200, backend=backend)
    torch.testing.assert_close(out[0], log_mel_spectrogram(waveform)[:3], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", RUNNABLE)
@pytest.mark.parametrize("out_dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_appended_speed_and_dtype_of_the_output(out_dtype, backend):
    waveform = torch.randn(2, 8000)
    out = log_mel_spectrogram(waveform, playback_speed=2, append_speed=True, out_dtype=out_dtype, backend=backend)
    expected = log_mel_spectrogram(waveform, playback_speed=2, backend=backend)
    assert out.dtype == out_dtype
    assert torch.equal(out[..., :64], expected.to(out_dtype))
    assert (out[..., 64] == 2).all()


def test_five_seconds_are_188_frames_of_silence_at_zero():
    out = log_mel_spectrogram(torch.zeros(110250))
    assert out.shape == (188, 64)
    assert out.abs().max() < 1e-6


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_inf_spoil_only_their_frames(value):
    waveform = torch.randn(20000)
    waveform[10000] = value
    out = log_mel_spectrogram(waveform, pad_mode="constant")
    touched = [f for f in range(out.shape[0]) if abs(f * 588 - 10000) <= 768]
    spoilt = (~torch.isfinite(out)).any(-1).nonzero().flatten().tolist()
    assert spoilt
    assert set(spoilt) <= set(touched)


def test_non_contiguous_input():
    waveform = torch.randn(4000, 2)
    torch.testing.assert_close(log_mel_spectrogram(waveform.T), log_mel_spectrogram(waveform.T.contiguous()))


def test_short_input_reflects_as_often_as_needed():
    x = np.random.default_rng(1).standard_normal(5).astype(np.float32)
    padded = np.pad(x, 768, mode="reflect")
    out = log_mel_spectrogram(torch.from_numpy(x))
    expected = log_mel_spectrogram(torch.from_numpy(padded), pad_mode="constant", hop_length=1)[768]
    torch.testing.assert_close(out[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", RUNNABLE)
@pytest.mark.parametrize(
    ("shape", "offsets", "append", "dtype"),
    [((2, 1700), None, None, torch.float32), ((2000,), [0, 1200, 1200, 2000], 1.0, torch.bfloat16)],
)
def test_opcheck(shape, offsets, append, dtype, backend):
    settings = LogMelSettings("reflect", 22050.0, 1536, 588, 8, 20.0, 11025.0).packed()
    ragged = (None, 0) if offsets is None else (torch.tensor(offsets), 1200)
    waveform = torch.randn(shape, requires_grad=True)
    torch.library.opcheck(
        torch.ops.reserve_kernels.log_mel_spectrogram, (waveform, *settings, None, *ragged, append, dtype, backend)
    )


@pytest.mark.parametrize("backend", RUNNABLE)
@pytest.mark.parametrize("arguments", [{}, {"preset": "whisper"}, {"n_fft": 400, "window": torch.ones(400)}])
def test_the_ways_through_pytorch_give_the_same(arguments, backend):
    """Plain tensors without a gradient go past the dispatcher."""
    call = functools.partial(log_mel_spectrogram, **arguments, backend=backend)
    waveform = torch.randn(2, 3000)
    direct, differentiable = call(waveform), call(waveform.clone().requires_grad_())
    with Ops() as ops:
        by_op = call(waveform)
    assert "reserve_kernels.log_mel_spectrogram.default" in ops.names
    assert differentiable.requires_grad
    assert torch.equal(direct, by_op)
    assert torch.equal(direct, differentiable.detach())


@pytest.mark.parametrize("backend", RUNNABLE)
def test_compiles_as_one_graph(backend):
    waveform = torch.randn(2, 3000)
    out = torch.compile(lambda x: log_mel_spectrogram(x, backend=backend) * 2, fullgraph=True)(waveform)
    torch.testing.assert_close(out, log_mel_spectrogram(waveform) * 2, atol=1e-5, rtol=1e-5)


def test_compiles_with_lengths_that_vary():
    def run(x, offsets):
        return log_mel_spectrogram(x, offsets=offsets, max_samples=x.shape[0])

    compiled = torch.compile(run, fullgraph=True, dynamic=True)
    for samples in (3000, 4001):
        x, offsets = torch.randn(samples), torch.tensor([0, 1000, samples])
        torch.testing.assert_close(compiled(x, offsets), run(x, offsets))


def test_double_backward_is_refused():
    x = torch.randn(3000, requires_grad=True)
    (grad,) = torch.autograd.grad(log_mel_spectrogram(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(grad.sum(), x)


BAD = {
    "type": ({"waveform": [0.0]}, TypeError, "waveform must be a torch.Tensor"),
    "dtype": ({"waveform": torch.zeros(9, dtype=torch.int32)}, TypeError, "waveform must have dtype"),
    "no samples": ({"waveform": torch.zeros(3, 0)}, ValueError, "at least one sample"),
    "pad_mode": ({"pad_mode": "edge"}, ValueError, "pad_mode must be one of 'reflect', 'constant', .*; got 'edge'"),
    "speed": ({"playback_speed": 0}, ValueError, "playback_speed must be an integer from 1 to 2147483647; got 0"),
    "speed is true": ({"playback_speed": True}, TypeError, "playback_speed must be an integer .*; got True"),
    "n_fft": ({"n_fft": 1}, ValueError, "n_fft must be an integer from 2 to"),
    "n_fft is text": ({"n_fft": "1536"}, TypeError, "n_fft must be an integer .*; got '1536'"),
    "hop beyond 32 bits": ({"hop_length": 2**31}, ValueError, "hop_length must be an integer .*; got 2147483648"),
    "hop at speed beyond 32 bits": (
        {"hop_length": 2**30, "playback_speed": 2},
        ValueError,
        r"hop_length \* playback_speed must be at most 2147483647; got hop_length=1073741824, playback_speed=2",
    ),
    "n_mels is nan": ({"n_mels": math.nan}, TypeError, "n_mels must be an integer .*; got nan"),
    "n_mels is a float": ({"n_mels": 64.0}, TypeError, "n_mels must be an integer .*; got 64.0"),
    "sample_rate is inf": ({"sample_rate": math.inf}, ValueError, "sample_rate must be finite; got inf"),
    "sample_rate is nan": ({"sample_rate": math.nan}, ValueError, "sample_rate must be finite; got nan"),
    "f_min is text": ({"f_min": "0"}, TypeError, "f_min must be a number; got '0'"),
    "f_max is a tensor": ({"f_max": torch.tensor(1.0)}, TypeError, "f_max must be a number; got tensor"),
    "band": ({"f_max": 12000.0}, ValueError, "f_min and f_max must satisfy"),
    "offset": (
        {"offset": 0.0},
        ValueError,
        "offset \\+ floor must be from 1e-30 to 1e\\+30, .*; got offset=0.0, floor=0.0",
    ),
    "offset beyond float32": ({"offset": 1e39}, ValueError, "offset \\+ floor must be from 1e-30"),
    "offset is nan": ({"offset": math.nan}, ValueError, "offset must be finite"),
    "max_samples is a float": (
        {"offsets": torch.tensor([0, 9]), "max_samples": 9.0},
        TypeError,
        "max_samples must be an integer of at least 0; got 9.0",
    ),
    "backend": ({"backend": "fft"}, ValueError, "backend must be 'auto' or one of .*; got 'fft'"),
    "out_dtype": ({"out_dtype": torch.int16}, TypeError, "out_dtype must be a floating-point dtype"),
    "offsets alone": ({"offsets": torch.tensor([0, 9])}, ValueError, "must be passed together"),
    "offsets dtype": ({"offsets": torch.zeros(2), "max_samples": 9}, TypeError, "offsets must have dtype int32, int64"),
    "offsets beyond": ({"offsets": torch.tensor([0, 9999]), "max_samples": 9}, ValueError, "lie from 0 to the 3000"),
    "offsets back": ({"offsets": torch.tensor([5, 3]), "max_samples": 9}, ValueError, "offsets must not decrease"),
    "max_samples": ({"offsets": torch.tensor([0, 9]), "max_samples": -1}, ValueError, "max_samples must be an integer"),
    "batched and ragged": (
        {"waveform": torch.zeros(2, 3000), "offsets": torch.tensor([0, 9]), "max_samples": 9},
        ValueError,
        r"waveform must be \[samples\] with offsets",
    ),
}


@pytest.mark.parametrize(("change", "error", "message"), BAD.values(), ids=BAD.keys())
def test_bad_arguments_are_named(change, error, message):
    with pytest.raises(error, match=message):
        log_mel_spectrogram(**({"waveform": torch.zeros(3000)} | change))


@pytest.mark.parametrize("n_fft", [1536, 512], ids=["fused", "any other size"])
def test_autocast_changes_nothing(n_fft):
    waveform = torch.randn(2, 4000, requires_grad=True)
    expected = log_mel_spectrogram(waveform, n_fft=n_fft)
    (expected_grad,) = torch.autograd.grad(expected.sum(), waveform)
    with torch.autocast("cpu", torch.bfloat16):
        out = log_mel_spectrogram(waveform, n_fft=n_fft)
        (grad,) = torch.autograd.grad(out.sum(), waveform)
    assert torch.equal(out, expected)
    assert torch.equal(grad, expected_grad)


def test_settings_are_pickled_without_their_hash():
    """Those of strings differ from process to process."""
    settings, _ = settings_of("whisper", {})
    assert hash(settings) == hash(dataclasses.replace(settings))
    copy = pickle.loads(pickle.dumps(settings))
    assert "_hash" in vars(settings)
    assert "_hash" not in vars(copy)
    assert copy == settings


def test_the_default_dtype_does_not_matter():
    """Parameters that no other test uses: constants are cached."""
    waveform = torch.randn(4000)
    expected = log_mel_spectrogram(waveform, f_min=33.0, backend="reference")
    with torch_defaults(torch.float64):
        out = log_mel_spectrogram(waveform, f_min=33.0)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


EMPTY_BANDS = {"sample_rate": 16000, "n_fft": 256, "hop_length": 64, "n_mels": 128, "f_min": 0.0, "f_max": 8000.0}


@pytest.mark.parametrize(
    ("settings", "empty"),
    [
        (EMPTY_BANDS, 13),  # librosa counts as many
        (EMPTY_BANDS | {"n_fft": 128, "playback_speed": 2}, 13),
        (EMPTY_BANDS | {"f_min": 7990.0, "n_mels": 1}, 1),
        ({"n_mels": 1024}, 237),
    ],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_bands_without_a_bin_are_zero_with_a_warning(settings, empty, compiled):
    def run(waveform):
        return log_mel_spectrogram(waveform * 1, **settings)

    waveform = torch.randn(16000, requires_grad=True)
    with pytest.warns(UserWarning, match=f"{empty} of the n_mels={settings['n_mels']} bands .*n_fft.* at sample_rate="):
        out = (torch.compile(run, fullgraph=True, backend="aot_eager") if compiled else run)(waveform)
    assert int((out == 0).all(0).sum()) == empty
    out.sum().backward()
    assert waveform.grad.isfinite().all()


@pytest.mark.parametrize("requires_grad", [False, True])
def test_the_warning_points_to_the_caller(requires_grad):
    with pytest.warns(UserWarning, match="n_mels=128") as caught:
        log_mel_spectrogram(torch.randn(16000, requires_grad=requires_grad), **EMPTY_BANDS)
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("speed", [1, 2, 3])
def test_the_models_own_bands_give_no_warning(speed, recwarn):
    log_mel_spectrogram(torch.randn(16000), playback_speed=speed)
    assert not [warning for warning in recwarn if issubclass(warning.category, UserWarning)]


@pytest.mark.parametrize("pad_mode", ["reflect", "constant"])
@pytest.mark.parametrize("sizes", [{"n_fft": 5000}, {"n_fft": 128, "hop_length": 700}, {"n_fft": 7, "n_mels": 2}])
def test_windows_longer_than_the_clip_and_hops_longer_than_windows(pad_mode, sizes):
    """Frames are cut from the padded clip one by one, in NumPy."""
    settings = {"n_fft": 1536, "hop_length": 588, "n_mels": 8} | sizes
    waveform, half = torch.randn(1500, dtype=torch.float64), settings["n_fft"] // 2
    padded = np.pad(waveform.numpy(), half, mode=pad_mode)
    window = np.hanning(settings["n_fft"])
    starts = range(0, len(padded) - settings["n_fft"] + 1, settings["hop_length"])
    power = [np.abs(np.fft.rfft(padded[s : s + settings["n_fft"]] * window)) ** 2 for s in starts]
    filters = mel_filterbank(22050.0, settings["n_fft"], settings["n_mels"], 20.0, 11025.0)
    expected = np.log(np.stack(power) @ filters.numpy().T + 0.1) - np.log(0.1)
    out = log_mel_spectrogram(waveform, pad_mode=pad_mode, **settings)
    torch.testing.assert_close(out, torch.from_numpy(expected))
