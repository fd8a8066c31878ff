from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from reserve_kernels import backends, log_mel_spectrogram
from reserve_kernels.bench.log_mel_originals import ORIGINALS, native_fbank
from reserve_kernels.log_mel.presets import PRESETS
from tests.kernels.log_mel_originals import installed, original

RUNNABLE = [r.backend for r in backends() if r.op == "log_mel_spectrogram" and r.device == "cpu" and not r.reason]
# A preset's own bands give no warning, whether they are empty or not.
pytestmark = pytest.mark.filterwarnings("error:log_mel_spectrogram. .* of the n_mels:UserWarning")


def speech_like(samples: int) -> torch.Tensor:
    """Harmonics that glide and pause over faint noise: loud and faint bands in one clip, float32 from -1 to 1."""
    time = torch.arange(samples, dtype=torch.float64) / 16000
    pitch = 2 * np.pi * (120 * time + 15 * torch.sin(2 * np.pi * 0.7 * time))
    voice = sum(torch.sin(k * pitch) / k for k in range(1, 30)) * (torch.sin(2 * np.pi * 2.5 * time) > -0.5)
    out = 0.2 * voice + 0.003 * torch.randn(samples, dtype=torch.float64)
    return out.float()


SIGNALS = {
    "speech": lambda: speech_like(48000),
    "noise": lambda: torch.randn(20011) * 0.2,
    "short": lambda: torch.randn(1400) * 0.1,
    "two frames": lambda: torch.randn(601),
}


def samples_for(preset: str, signal: str) -> torch.Tensor:
    # The originals cannot reflect a clip that is shorter than half a window.
    short = signal == "two frames" and preset in ("reserve", "clap", "clap_fusion", "librosa")
    return torch.randn(1500) if short else SIGNALS[signal]()


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("preset", ORIGINALS)
def test_a_preset_is_its_original(preset, signal):
    samples = samples_for(preset, signal).double()
    expected = original(preset)(samples)
    out = log_mel_spectrogram(samples, preset=preset)
    assert out.shape == expected.shape
    torch.testing.assert_close(out, expected.double(), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("backend", RUNNABLE)
@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("preset", ORIGINALS)
def test_in_float32_a_preset_is_what_its_original_means(preset, signal, backend):
    """To a relative 1e-4 of mel, or twice what the original loses in float32: some compute in float64 inside.

    That is of all values but one in 200: what float32 leaves of a faint band of a loud frame depends on chance.
    """
    theirs, samples = original(preset), samples_for(preset, signal)
    truth = theirs(samples.double()).double()
    lost = (theirs(samples).double() - truth).abs().max()
    out = log_mel_spectrogram(samples, preset=preset, backend=backend)
    assert out.dtype == torch.float32
    unit = 10 / math.log(10) if PRESETS[preset].arguments.get("log") == "db" else 1.0
    error = (out.double() - truth).abs()
    assert error.quantile(0.995) < 1e-4 * unit + 2 * lost
    assert error.max() < 5e-3 * unit


def test_every_preset_has_an_original():
    assert PRESETS.keys() == ORIGINALS.keys()


@pytest.mark.parametrize("snip_edges", [True, False])
@pytest.mark.parametrize("samples", [48000, 20011, 400, 560])
def test_kaldi_native_fbank_computes_the_same(samples, snip_edges):
    waveform = speech_like(samples)
    options = {"mel_opts.num_bins": 80, "frame_opts.snip_edges": snip_edges}
    expected = installed(lambda: native_fbank(options))(waveform)
    framing, pad_mode = ("inside_window", None) if snip_edges else ("kaldi_centered", "symmetric")
    out = log_mel_spectrogram(waveform, preset="kaldi", framing=framing, pad_mode=pad_mode)
    assert out.shape == expected.shape
    assert (out - expected).abs().max() < 1e-3
    assert (out - expected).abs().mean() < 1e-5
