from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from reserve_kernels.compat.whisper import log_mel_spectrogram


@pytest.fixture
def original():
    return pytest.importorskip("whisper.audio").log_mel_spectrogram


@pytest.mark.parametrize("bands", [80, 128])
@pytest.mark.parametrize("shape", [(16000,), (3, 8000)])
def test_a_tensor_gives_the_original_s_features(original, shape, bands):
    # The clips of a batch are as loud as one another or not at all.
    samples = torch.randn(shape) * torch.logspace(-4, 0, shape[0])[:, None] if len(shape) == 2 else torch.randn(shape)
    out = log_mel_spectrogram(samples, bands)
    assert out.shape == (*shape[:-1], bands, shape[-1] // 160)
    torch.testing.assert_close(out, original(samples, bands), atol=1e-4, rtol=0)


def test_arrays_padding_and_device(original):
    samples = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    out = log_mel_spectrogram(samples, padding=1000, device="cpu")
    assert out.shape == (80, 37)
    torch.testing.assert_close(out, original(samples, padding=1000, device="cpu"), atol=1e-4, rtol=0)


def test_a_path_is_decoded_by_whisper(original, monkeypatch):
    samples = np.random.default_rng(0).standard_normal(3000).astype(np.float32)
    monkeypatch.setattr("whisper.audio.load_audio", {"speech.wav": samples}.__getitem__)
    assert torch.equal(log_mel_spectrogram("speech.wav"), log_mel_spectrogram(samples))


def test_a_path_without_whisper_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "whisper.audio", None)
    with pytest.raises(ModuleNotFoundError, match="audio is a path, which openai-whisper decodes"):
        log_mel_spectrogram("speech.wav")


@pytest.mark.parametrize("shape", [(0, 16000), (3, 100)])
def test_batches_without_a_frame_are_empty(shape):
    assert log_mel_spectrogram(torch.zeros(shape)).shape == (shape[0], 80, shape[1] // 160)


def test_float64_reversed_and_int16_arrays_are_float32_features():
    samples = np.random.default_rng(0).standard_normal(3000)
    expected = log_mel_spectrogram(samples[::-1].astype(np.float32))
    out = log_mel_spectrogram(samples[::-1])
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, expected)
    loud = (samples * 3000).astype(np.int16)
    torch.testing.assert_close(log_mel_spectrogram(loud), log_mel_spectrogram(loud.astype(np.float32) / 32768))


def test_other_types_are_named():
    with pytest.raises(TypeError, match=r"audio must be a path, a NumPy array or a torch\.Tensor; got list"):
        log_mel_spectrogram([0.0])


def test_other_numbers_of_bands_are_refused():
    with pytest.raises(ValueError, match="n_mels must be 80 or 128; got 64"):
        log_mel_spectrogram(torch.zeros(16000), 64)
