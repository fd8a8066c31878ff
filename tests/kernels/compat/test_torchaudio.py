from __future__ import annotations

import pytest
import torch

from reserve_kernels.compat.torchaudio import MelSpectrogram

pytestmark = pytest.mark.filterwarnings("ignore:.* (of the n_mels|all zero values)")


@pytest.fixture
def original():
    return pytest.importorskip("torchaudio.transforms").MelSpectrogram


ARGUMENTS = {
    "defaults": {},
    "22050 Hz": {"sample_rate": 22050, "n_fft": 1024, "hop_length": 256, "n_mels": 80, "f_min": 20, "f_max": 8000},
    "an odd rate": {"sample_rate": 11025, "n_mels": 40},
    "short window": {"n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 64},
    "odd transform": {"n_fft": 405, "n_mels": 20},
    "padded": {"pad": 100},
    "hamming": {"window_fn": torch.hamming_window, "wkwargs": {"periodic": False}},
    "amplitude": {"power": 1.0},
    "normalized": {"normalized": True},
    "normalized by length": {"normalized": "frame_length"},
    "not centred": {"center": False},
    "constant": {"pad_mode": "constant"},
    "replicate": {"pad_mode": "replicate"},
    "circular": {"pad_mode": "circular"},
    "slaney": {"norm": "slaney", "mel_scale": "slaney", "n_mels": 80},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS.keys())
def test_arguments_mean_what_they_mean_in_torchaudio(original, arguments, dtype):
    waveform = torch.randn(2, 1, 4000, dtype=dtype)
    theirs, ours = original(**arguments).to(dtype), MelSpectrogram(**arguments).to(dtype)
    expected = theirs(waveform)
    out = ours(waveform)
    assert out.dtype == expected.dtype
    torch.testing.assert_close(out, expected, atol=1e-4 * float(expected.abs().max()) * 0.01, rtol=1e-4)
    for name in ("sample_rate", "n_fft", "win_length", "hop_length", "f_min", "f_max", "pad", "n_mels", "power"):
        assert getattr(ours, name) == getattr(theirs, name), name


def test_state_dicts_are_interchangeable(original):
    ours, theirs = MelSpectrogram(n_mels=40), original(n_mels=40)
    for a, b in ((ours, theirs), (theirs, ours)):
        a.load_state_dict(b.state_dict())
    torch.testing.assert_close(MelSpectrogram(n_mels=40).state_dict(), theirs.state_dict())


def test_a_state_dict_of_other_bands_is_refused(original):
    with pytest.raises(RuntimeError, match="holds other bands"):
        MelSpectrogram(n_mels=40).load_state_dict(original(n_mels=40, mel_scale="slaney").state_dict())


def test_a_window_that_was_loaded_is_normalized_anew(original):
    theirs = original(normalized=True)
    ours = MelSpectrogram(normalized=True, window_fn=torch.hamming_window)
    ours.load_state_dict(theirs.state_dict())
    waveform = torch.randn(1, 3000)
    torch.testing.assert_close(ours(waveform), theirs(waveform), atol=1e-5, rtol=1e-4)


def test_half_precision_gives_float32_as_in_torchaudio(original):
    waveform = (20 * torch.randn(4000)).half()
    out, expected = MelSpectrogram()(waveform), original()(waveform.float())
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, expected, atol=1.0, rtol=1e-4)


def test_gradients_are_torchaudio_s(original):
    ours, theirs = (torch.randn(1, 3000, generator=torch.manual_seed(0), requires_grad=True) for _ in range(2))
    MelSpectrogram()(ours).log1p().sum().backward()
    original()(theirs).log1p().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"power": 1.5}, "power must be 1 or 2; got 1.5"),
        ({"norm": "l1"}, "norm must be None or 'slaney'; got 'l1'"),
        ({"normalized": "energy"}, "normalized must be a bool, 'window' or 'frame_length'; got 'energy'"),
    ],
)
def test_what_is_not_supported_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MelSpectrogram(**arguments)


def test_onesided_warns_as_in_torchaudio():
    with pytest.warns(UserWarning, match="onesided has no effect"):
        MelSpectrogram(onesided=True)
