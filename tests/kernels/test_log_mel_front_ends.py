"""The parameters of log_mel_spectrogram one by one, against NumPy, and their gradients against automatic ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from reserve_kernels import backends, log_mel_spectrogram
from reserve_kernels.log_mel.arguments import settings_of
from reserve_kernels.log_mel.filters import mel_filterbank
from reserve_kernels.log_mel.presets import PRESETS
from reserve_kernels.log_mel.reference import log_mel_reference
from reserve_kernels.log_mel.settings import LogMelSettings
from tests.kernels.numerics import assert_as_good_as_reference

RUNNABLE = [r.backend for r in backends() if r.op == "log_mel_spectrogram" and r.device == "cpu" and not r.reason]
every_backend = pytest.mark.parametrize("backend", RUNNABLE)
pytestmark = pytest.mark.filterwarnings("ignore:log_mel_spectrogram. .* of the n_mels:UserWarning")

SMALL = {"sample_rate": 16000.0, "n_fft": 240, "hop_length": 100, "n_mels": 12, "f_min": 50.0, "f_max": 8000.0}
CHANGES = {
    "nothing": {},
    "short window": {"win_length": 150},
    "odd transform": {"n_fft": 225},
    "hann": {"window": "hann"},
    "hamming": {"window": "hamming"},
    "hamming_symmetric": {"window": "hamming_symmetric"},
    "povey": {"window": "povey"},
    "rectangular": {"window": "rectangular"},
    "inside": {"framing": "inside", "win_length": 200},
    "inside_window": {"framing": "inside_window", "win_length": 200},
    "centered_window": {"framing": "centered_window", "win_length": 201},
    "kaldi_centered": {"framing": "kaldi_centered", "win_length": 200, "pad_mode": "symmetric"},
    "without the last": {"drop_last": True},
    "constant": {"pad_mode": "constant"},
    "replicate": {"pad_mode": "replicate"},
    "circular": {"pad_mode": "circular"},
    "symmetric": {"pad_mode": "symmetric"},
    "scaled": {"sample_scale": 32768.0, "offset": 1.0},
    "without mean": {"remove_dc": True},
    "pre-emphasis": {"preemphasis": 0.97},
    "without mean, pre-emphasis, short": {"remove_dc": True, "preemphasis": 0.9, "win_length": 133},
    "amplitude": {"power": 1},
    "htk": {"mel_scale": "htk"},
    "kaldi's triangles": {"mel_scale": "kaldi", "mel_norm": "none"},
    "floor": {"floor": 0.05, "offset": 0.0},
    "floor and offset": {"floor": 0.05, "offset": 0.01, "relative": False},
    "log10": {"log": "log10"},
    "db": {"log": "db", "relative": False},
    "db of amplitudes": {"log": "db", "power": 1},
    "no logarithm": {"log": "none"},
    "range": {"dynamic_range": 1.0},
    "range, scale and shift": {"log": "db", "dynamic_range": 5.0, "out_scale": 0.25, "out_shift": 1.0},
    "scale and shift": {"out_scale": -2.0, "out_shift": 0.5},
    "bands first": {"bands_first": True, "dynamic_range": 2.0},
    "200 bands": {"n_mels": 200},
}
every_change = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())


def in_numpy(samples: np.ndarray, s: LogMelSettings) -> np.ndarray:
    """One clip [samples], frame by frame, by np.pad and np.fft."""
    name = {"replicate": "edge", "circular": "wrap"}.get(s.pad_mode, s.pad_mode)
    frame = s.length if s.framing.endswith("window") else s.n_fft
    left = right = frame // 2 if s.framing.startswith("centered") else 0
    if s.framing == "kaldi_centered":
        frame, left, right = s.length, s.length // 2 - s.hop_length // 2, s.length
    padded = np.pad(samples * s.sample_scale, (left, right), mode=name)
    count = 1 + (len(padded) - frame) // s.hop_length
    if s.framing == "kaldi_centered":
        count = (len(samples) + s.hop_length // 2) // s.hop_length
    window = {
        "hann": lambda n: np.hanning(n + 1)[:-1],
        "hann_symmetric": np.hanning,
        "hamming": lambda n: np.hamming(n + 1)[:-1],
        "hamming_symmetric": np.hamming,
        "povey": lambda n: np.hanning(n) ** 0.85,
        "rectangular": np.ones,
    }[s.window](s.length)
    rows = []
    for f in range(count - s.drop_last):
        start = f * s.hop_length + (frame - s.length) // 2
        x = padded[start : start + s.length].copy()
        if s.remove_dc:
            x -= x.mean()
        if s.preemphasis:
            x = np.append(x[0] * (1 - s.preemphasis), x[1:] - s.preemphasis * x[:-1])
        magnitude = np.abs(np.fft.rfft(x * window, s.n_fft)) ** s.power
        rows.append(mel_filterbank(*s.bank).numpy() @ magnitude)
    mel = np.stack(rows)
    if s.log != "none":
        base = {"ln": np.log, "log10": np.log10, "db": lambda x: 10 * np.log10(x**2 if s.power == 1 else x)}[s.log]
        mel = base(np.maximum(mel, s.floor) + s.offset) - (base(s.floor + s.offset) if s.relative else 0)
    mel = np.maximum(mel, mel.max() - s.dynamic_range) * s.out_scale + s.out_shift
    return mel.T if s.bands_first else mel


@every_backend
@every_change
def test_every_parameter_is_as_in_numpy(change, backend):
    arguments = SMALL | change
    settings, _ = settings_of("reserve", arguments)
    waveform = torch.randn(3, 1234)
    truth = torch.from_numpy(np.stack([in_numpy(clip, settings) for clip in waveform.double().numpy()]))
    exact, plain = (log_mel_spectrogram(x, backend="reference", **arguments) for x in (waveform.double(), waveform))
    torch.testing.assert_close(exact, truth, atol=1e-9, rtol=1e-9)
    assert_as_good_as_reference(log_mel_spectrogram(waveform, backend=backend, **arguments), truth, plain)


@every_change
def test_gradients_are_those_of_automatic_differentiation(change):
    arguments = SMALL | change
    settings, _ = settings_of("reserve", arguments)
    ours, plain = (torch.randn(2, 700, dtype=torch.float64, generator=torch.manual_seed(1)) for _ in range(2))
    out, expected = (
        log_mel_spectrogram(ours.requires_grad_(), **arguments),
        log_mel_reference(plain.requires_grad_(), settings),
    )
    grad = torch.randn_like(out)
    out.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(ours.grad, plain.grad, atol=1e-9, rtol=1e-9)


RAGGED = [1234, 0, 1, 90, 700]


@every_backend
@every_change
def test_ragged_clips_are_as_each_alone(change, backend):
    arguments = SMALL | change | {"bands_first": False, "backend": backend}
    clips = [torch.randn(n) for n in RAGGED]
    offsets = torch.tensor([0, *RAGGED]).cumsum(0)
    waveform = torch.cat(clips).requires_grad_()
    out = log_mel_spectrogram(waveform, offsets=offsets, max_samples=1234, **arguments)
    grad = torch.randn_like(out)
    out.backward(grad)
    for c, clip in enumerate(clips):
        alone = clip.clone().requires_grad_()
        expected = log_mel_spectrogram(alone, **arguments) if len(clip) else out.new_zeros(0, out.shape[-1])
        frames = expected.shape[0]
        torch.testing.assert_close(out[c, :frames], expected, atol=1e-4, rtol=1e-4)
        assert not out[c, frames:].any()
        if frames:
            expected.backward(grad[c, :frames])
            mine = waveform.grad[int(offsets[c]) : int(offsets[c + 1])]
            largest = float(alone.grad.abs().max())
            torch.testing.assert_close(mine, alone.grad, atol=1e-4 * largest + 1e-6, rtol=1e-3)


@every_backend
@pytest.mark.parametrize("framing", ["inside", "inside_window"])
def test_a_clip_shorter_than_a_frame_has_none(framing, backend):
    waveform = torch.randn(2, 199, requires_grad=True)
    out = log_mel_spectrogram(waveform, **SMALL, win_length=200, framing=framing, backend=backend)
    assert out.shape == (2, 0, 12)
    out.sum().backward()
    assert not waveform.grad.any()


@every_backend
@pytest.mark.parametrize("preset", PRESETS)
def test_int16_is_as_its_fraction_of_32768(preset, backend):
    samples = torch.randint(-32768, 32767, (2, 5000), dtype=torch.int16)
    out = log_mel_spectrogram(samples, preset=preset, backend=backend)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, log_mel_spectrogram(samples / 32768, preset=preset, backend=backend))


@every_backend
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(preset, dtype, backend):
    samples = torch.randn(5000).to(dtype)
    out = log_mel_spectrogram(samples, preset=preset, out_dtype=torch.float32, backend=backend)
    torch.testing.assert_close(out, log_mel_spectrogram(samples.float(), preset=preset, backend=backend))


@every_backend
def test_a_window_can_be_given(backend):
    waveform = torch.randn(2, 3000)
    window = torch.hann_window(400, periodic=True, dtype=torch.float64)
    arguments = {"n_fft": 512, "win_length": 400, "backend": backend}
    expected = log_mel_spectrogram(waveform, window="hann", **arguments)
    torch.testing.assert_close(
        log_mel_spectrogram(waveform, window=window, **arguments), expected, atol=1e-5, rtol=1e-5
    )
    strided = torch.stack((window, window)).T[:, 0]
    torch.testing.assert_close(
        log_mel_spectrogram(waveform, window=strided, **arguments), expected, atol=1e-5, rtol=1e-5
    )
    doubled = log_mel_spectrogram(waveform, window=2 * window, log="none", **arguments)
    plain = log_mel_spectrogram(waveform, window=window, log="none", **arguments)
    torch.testing.assert_close(doubled, 4 * plain)


@every_backend
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("change", ["floor", "no logarithm", "without mean, pre-emphasis, short", "db of amplitudes"])
def test_bad_samples_show_in_their_frames(change, value, backend):
    waveform = torch.randn(3000)
    waveform[1500] = value
    arguments = SMALL | CHANGES[change] | {"pad_mode": "constant", "f_min": 3000.0}
    s, _ = settings_of("reserve", arguments)
    out = log_mel_spectrogram(waveform, backend=backend, **arguments)
    touched = [0 <= 1500 - (f * 100 + s.start) < s.length for f in range(len(out))]
    # A window that ends in zeros may or may not read the sample at its end; none is there.
    assert (~out.isfinite()).all(-1).tolist() == touched
    assert (~out.isfinite()).any(-1).tolist() == touched


def test_numbers_of_numpy_are_numbers():
    waveform = torch.randn(3000)
    given = {"dynamic_range": np.float32(8), "sample_rate": np.float64(22050), "n_mels": np.int64(40)}
    plain = {"dynamic_range": 8.0, "sample_rate": 22050.0, "n_mels": 40}
    assert torch.equal(log_mel_spectrogram(waveform, **given), log_mel_spectrogram(waveform, **plain))


def test_a_range_is_each_clip_s_own():
    loud, faint = torch.randn(2000), 1e-3 * torch.randn(2000)
    both = log_mel_spectrogram(torch.stack((loud, faint)), preset="whisper")
    assert torch.equal(both[1], log_mel_spectrogram(faint, preset="whisper"))


def test_long_clips_are_computed_in_parts(monkeypatch):
    from reserve_kernels.log_mel import reference

    waveform = torch.randn(2, 5000)
    whole = log_mel_spectrogram(waveform, preset="kaldi", backend="reference")
    monkeypatch.setattr(reference, "PART", 2 * 512 * 4)
    torch.testing.assert_close(log_mel_spectrogram(waveform, preset="kaldi", backend="reference"), whole)


def test_packed_settings_are_the_same_unpacked():
    for preset in PRESETS:
        settings, _ = settings_of(preset, {})
        assert LogMelSettings.unpacked(*settings.packed()) == settings


def test_compiles_with_other_front_ends():
    def run(x):
        return log_mel_spectrogram(x, preset="whisper") * 2

    x = torch.randn(2, 3000)
    torch.testing.assert_close(torch.compile(run, fullgraph=True, backend="aot_eager")(x), run(x))


BAD = {
    "preset": ({"preset": "melspec"}, ValueError, "preset must be one of 'reserve', .*; got 'melspec'"),
    "window's name": (
        {"window": "kaiser"},
        ValueError,
        "window must be one of 'hann', .* or a torch.Tensor; got 'kaiser'",
    ),
    "window's type": ({"window": np.ones(1536)}, TypeError, "window must be a name or a torch.Tensor; got ndarray"),
    "preset's type": ({"preset": ["whisper"]}, TypeError, "preset must be a name; got list"),
    "sample_rate": ({"sample_rate": 0.0}, ValueError, "sample_rate must be above 0; got 0.0"),
    "window's length": (
        {"window": torch.ones(9), "playback_speed": 2},
        ValueError,
        r"window must be \[win_length \* playback_speed\] = \[3072\]; got \[9\]",
    ),
    "window's dtype": ({"window": torch.ones(1536, dtype=torch.int32)}, TypeError, "window must be floating-point"),
    "window's gradient": ({"window": torch.ones(1536, requires_grad=True)}, ValueError, "must not require a gradient"),
    "window's device": ({"window": torch.ones(1536, device="meta")}, ValueError, "window must be on waveform's device"),
    "win_length": ({"win_length": 1537}, ValueError, "win_length must be at most n_fft = 1536; got 1537"),
    "n_fft alone": ({"preset": "kaldi", "n_fft": 1024}, ValueError, "win_length must be given with n_fft, .* 'kaldi'"),
    "framing": ({"framing": "same"}, ValueError, "framing must be one of 'centered', .*; got 'same'"),
    "mel_scale": ({"mel_scale": "bark"}, ValueError, "mel_scale must be one of 'slaney', .*; got 'bark'"),
    "mel_norm": ({"mel_norm": "l2"}, ValueError, "mel_norm must be one of 'slaney', 'none'; got 'l2'"),
    "log": ({"log": "log2"}, ValueError, "log must be one of 'none', 'ln', 'log10', 'db'; got 'log2'"),
    "flag": ({"remove_dc": 1}, TypeError, "remove_dc must be a bool; got 1"),
    "power": ({"power": 3}, ValueError, "power must be an integer from 1 to 2; got 3"),
    "preemphasis": ({"preemphasis": 1.5}, ValueError, "preemphasis must be from 0 to 1; got 1.5"),
    "sample_scale": ({"sample_scale": 0.0}, ValueError, "sample_scale must not be 0"),
    "negative floor": ({"floor": -1.0, "offset": 2.0}, ValueError, "offset . floor must be from 1e-30"),
    "dynamic_range": ({"dynamic_range": 0.0}, ValueError, "dynamic_range must be above 0, or math.inf"),
    "dynamic_range's type": ({"dynamic_range": "80"}, TypeError, "dynamic_range must be a number; got '80'"),
    "speed with bands first": (
        {"bands_first": True, "append_speed": True},
        ValueError,
        "append_speed must be False with bands_first",
    ),
}


@pytest.mark.parametrize(("change", "error", "message"), BAD.values(), ids=BAD.keys())
def test_bad_arguments_are_named(change, error, message):
    with pytest.raises(error, match=message):
        log_mel_spectrogram(torch.zeros(3000), **change)
