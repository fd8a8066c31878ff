"""The functions that the presets of log_mel_spectrogram stand for, each as its users call it.

`MAKERS[preset]()(samples)` takes samples [samples] and returns [frames, bands] or [bands, frames] as the preset does.
With float64 samples everything is computed in float64, filters included, so that the result is what the original means.
One that is not installed skips the test.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.helpers.torch_defaults import torch_defaults

Original = Callable[[torch.Tensor], torch.Tensor]


def _whisper(bands: int) -> Original:
    audio = pytest.importorskip("whisper.audio")

    def run(samples: torch.Tensor) -> torch.Tensor:
        # It multiplies its float32 filters by a spectrum of the samples' dtype.
        filters = audio.mel_filters("cpu", bands).to(samples.dtype)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(audio, "mel_filters", lambda device, n_mels: filters)
            return audio.log_mel_spectrogram(samples, n_mels=bands)

    return run


def _kaldi(scale: float = 1.0, **options) -> Original:
    kaldi = pytest.importorskip("torchaudio.compliance.kaldi")

    def run(samples: torch.Tensor) -> torch.Tensor:
        with torch_defaults(samples.dtype):
            return kaldi.fbank(samples[None] * scale, **options)

    return run


def _clap(truncation: str) -> Original:
    extractor = pytest.importorskip("transformers").ClapFeatureExtractor()
    filters = extractor.mel_filters if truncation == "fusion" else extractor.mel_filters_slaney
    return lambda samples: torch.from_numpy(extractor._np_extract_fbank_features(samples.numpy(), filters))


def _vggish() -> Original:
    features = pytest.importorskip("torchvggish.mel_features")
    parameters = pytest.importorskip("torchvggish.vggish_params")

    def run(samples: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(
            features.log_mel_spectrogram(
                samples.numpy(),
                audio_sample_rate=parameters.SAMPLE_RATE,
                log_offset=parameters.LOG_OFFSET,
                window_length_secs=parameters.STFT_WINDOW_LENGTH_SECONDS,
                hop_length_secs=parameters.STFT_HOP_LENGTH_SECONDS,
                num_mel_bins=parameters.NUM_MEL_BINS,
                lower_edge_hertz=parameters.MEL_MIN_HZ,
                upper_edge_hertz=parameters.MEL_MAX_HZ,
            )
        )

    return run


def _librosa() -> Original:
    librosa = pytest.importorskip("librosa")
    return lambda samples: torch.from_numpy(librosa.power_to_db(librosa.feature.melspectrogram(y=samples.numpy())))


def _torchaudio() -> Original:
    transforms = pytest.importorskip("torchaudio.transforms")

    def run(samples: torch.Tensor) -> torch.Tensor:
        with warnings.catch_warnings(), torch_defaults(samples.dtype):
            # Of bands without a frequency: its defaults have one.
            warnings.simplefilter("ignore")
            return transforms.MelSpectrogram()(samples)

    return run


def native_fbank(samples: np.ndarray, **options) -> np.ndarray:
    """kaldi-native-fbank's features [frames, bands] without dither, by its usual calls."""
    knf = pytest.importorskip("kaldi_native_fbank")
    chosen = knf.FbankOptions()
    chosen.frame_opts.dither = 0.0
    for name, value in options.items():
        part, _, field = name.rpartition("__")
        setattr(getattr(chosen, part) if part else chosen, field, value)
    fbank = knf.OnlineFbank(chosen)
    fbank.accept_waveform(16000, samples)
    fbank.input_finished()
    return np.stack([fbank.get_frame(i) for i in range(fbank.num_frames_ready)])


MAKERS: dict[str, Callable[[], Original]] = {
    "whisper": lambda: _whisper(80),
    "whisper_128": lambda: _whisper(128),
    "kaldi": lambda: _kaldi(num_mel_bins=80),
    "ast": lambda: _kaldi(num_mel_bins=128, window_type="hanning"),
    "beats": lambda: _kaldi(2.0**15, num_mel_bins=128),
    "clap": lambda: _clap("rand_trunc"),
    "clap_fusion": lambda: _clap("fusion"),
    "vggish": _vggish,
    "librosa": _librosa,
    "torchaudio": _torchaudio,
}
"""By preset; "reserve" has figures of the released code instead."""
