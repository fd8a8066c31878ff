from __future__ import annotations

import numpy as np
import pytest

transformers = pytest.importorskip("transformers")
pytest.importorskip("torchaudio")  # transformers' ASTFeatureExtractor computes something else without it

from reserve_kernels.compat import transformers as compat  # noqa: E402


def clips(rate: int, *seconds: float) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [(0.1 * generator.standard_normal(int(rate * s))).astype(np.float32) for s in seconds]


@pytest.mark.parametrize("bands", [80, 128])
@pytest.mark.parametrize("options", [{}, {"padding": "longest"}, {"do_normalize": True}], ids=str)
def test_whisper(bands, options):
    arguments = {"sampling_rate": 16000, "return_tensors": "pt", "return_attention_mask": True} | options
    theirs, ours = (m.WhisperFeatureExtractor(feature_size=bands, chunk_length=3) for m in (transformers, compat))
    sounds = clips(16000, 2.0, 0.7, 4.0)
    out, expected = ours(sounds, **arguments), theirs(sounds, **arguments)
    assert out.keys() == expected.keys()
    assert out["input_features"].shape == expected["input_features"].shape
    assert (out["input_features"] - expected["input_features"]).abs().max() < 1e-4
    assert (out["attention_mask"] == expected["attention_mask"]).all()


@pytest.mark.parametrize(
    "sizes",
    [
        {"n_fft": 401},
        {"n_fft": 375, "hop_length": 100},
        {"sampling_rate": 22051},
        {"sampling_rate": 48000, "n_fft": 1200, "hop_length": 480},
    ],
    ids=str,
)
def test_whisper_at_other_rates_and_sizes(sizes):
    theirs, ours = (m.WhisperFeatureExtractor(chunk_length=2, **sizes) for m in (transformers, compat))
    rate = theirs.sampling_rate
    out, expected = (e(clips(rate, 1.5), sampling_rate=rate, return_tensors="np") for e in (ours, theirs))
    assert np.abs(out["input_features"] - expected["input_features"]).max() < 1e-4


@pytest.mark.parametrize(
    "sizes",
    [
        {"fft_window_size": 1025},
        {"sampling_rate": 11025, "frequency_max": 5000, "fft_window_size": 512, "hop_length": 110},
        {"feature_size": 32, "frequency_min": 50},
    ],
    ids=str,
)
def test_clap_at_other_rates_and_sizes(sizes):
    theirs, ours = (m.ClapFeatureExtractor(max_length_s=1, **sizes) for m in (transformers, compat))
    rate = theirs.sampling_rate
    out, expected = (e(clips(rate, 0.9), sampling_rate=rate, return_tensors="np") for e in (ours, theirs))
    assert np.abs(out["input_features"] - expected["input_features"]).max() < 1e-3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: compat.WhisperFeatureExtractor(sampling_rate=8000), "sampling_rate must be at least 16000; got 8000"),
        (lambda: compat.ClapFeatureExtractor(sampling_rate=16000), "frequency_max <= sampling_rate // 2 = 8000"),
    ],
)
def test_bands_beyond_half_of_the_rate_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("options", [{}, {"max_length": 128}, {"num_mel_bins": 64, "do_normalize": False}], ids=str)
def test_ast(options):
    theirs, ours = (m.ASTFeatureExtractor(**options) for m in (transformers, compat))
    sounds = clips(16000, 2.0, 0.7)
    out, expected = (e(sounds, sampling_rate=16000, return_tensors="np")["input_values"] for e in (ours, theirs))
    assert out.shape == expected.shape
    assert out.dtype == expected.dtype
    difference = np.abs(out - expected)
    # What torchaudio's own float32 filters leave in the narrowest bands.
    assert difference.max() < 1e-3
    assert difference.mean() < 1e-5


@pytest.mark.parametrize("truncation", ["fusion", "rand_trunc"])
@pytest.mark.parametrize("padding", ["repeatpad", "repeat", "pad"])
def test_clap(truncation, padding):
    theirs, ours = (
        m.ClapFeatureExtractor(truncation=truncation, padding=padding, max_length_s=2) for m in (transformers, compat)
    )
    results = []
    for extractor in (ours, theirs):
        np.random.seed(0)  # noqa: NPY002  (the original draws its crops from it)
        results.append(extractor(clips(48000, 0.7, 2.0, 3.1), sampling_rate=48000, return_tensors="np"))
    out, expected = results
    assert (out["is_longer"] == expected["is_longer"]).all()
    assert out["input_features"].shape == expected["input_features"].shape
    # Decibels: 1e-4 of the power is 4e-4 of these.
    assert np.abs(out["input_features"] - expected["input_features"]).max() < 1e-3


@pytest.mark.parametrize("name", compat.__all__)
def test_files_are_transformers_own(name, tmp_path):
    ours = getattr(compat, name)()
    ours.save_pretrained(tmp_path)
    theirs = getattr(transformers, name).from_pretrained(tmp_path)
    assert theirs.to_dict() == ours.to_dict()
    assert getattr(compat, name).from_pretrained(tmp_path).to_dict() == ours.to_dict()
