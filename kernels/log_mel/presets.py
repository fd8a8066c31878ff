"""Front ends of known models and libraries, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A front end by name. The tests compare each with its original."""

    source: str
    """What computes the same: a function, with the arguments that are not its defaults."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of log_mel_spectrogram. Those that are missing are the defaults, DEFAULTS."""


DEFAULTS: dict[str, Any] = {
    "sample_rate": 22050.0,
    "n_fft": 1536,
    "hop_length": 588,
    "win_length": None,
    "window": "hann_symmetric",
    "framing": "centered",
    "drop_last": False,
    "pad_mode": "reflect",
    "sample_scale": 1.0,
    "remove_dc": False,
    "preemphasis": 0.0,
    "power": 2,
    "n_mels": 64,
    "f_min": 20.0,
    "f_max": 11025.0,
    "mel_scale": "slaney",
    "mel_norm": "slaney",
    "log": "ln",
    "floor": 0.0,
    "offset": 0.1,
    "relative": True,
    "dynamic_range": float("inf"),
    "out_scale": 1.0,
    "out_shift": 0.0,
    "bands_first": False,
}
"""The arguments of the preset "reserve". `f_max` None is half of the sample rate, `win_length` None is `n_fft`."""

_STFT = {"window": "hann", "offset": 0.0, "relative": False, "f_min": 0.0, "f_max": None, "bands_first": True}
"""What torch.stft's and librosa's users have in common."""

_WHISPER = _STFT | {
    "sample_rate": 16000.0,
    "n_fft": 400,
    "hop_length": 160,
    "drop_last": True,
    "log": "log10",
    "floor": 1e-10,
    "dynamic_range": 8.0,
    "out_scale": 0.25,
    "out_shift": 1.0,
}

_KALDI = {
    "sample_rate": 16000.0,
    "n_fft": 512,
    "hop_length": 160,
    "win_length": 400,
    "window": "povey",
    "framing": "inside_window",
    "remove_dc": True,
    "preemphasis": 0.97,
    "n_mels": 80,
    "f_max": None,
    "mel_scale": "kaldi",
    "mel_norm": "none",
    "floor": 2.0**-23,
    "offset": 0.0,
    "relative": False,
}

_CLAP = _STFT | {
    "sample_rate": 48000.0,
    "n_fft": 1024,
    "hop_length": 480,
    "n_mels": 64,
    "f_max": 14000.0,
    "log": "db",
    "floor": 1e-10,
    "bands_first": False,
}

PRESETS: dict[str, Preset] = {
    "reserve": Preset("MERLOT Reserve's released code (SPEC 2)"),
    "whisper": Preset(
        "whisper.audio.log_mel_spectrogram, for each clip alone; transformers.WhisperFeatureExtractor",
        _WHISPER | {"n_mels": 80},
    ),
    "whisper_128": Preset(
        "whisper.audio.log_mel_spectrogram(n_mels=128), as of large-v3; transformers.WhisperFeatureExtractor",
        _WHISPER | {"n_mels": 128},
    ),
    "kaldi": Preset("torchaudio.compliance.kaldi.fbank(num_mel_bins=80); kaldi_native_fbank without dither", _KALDI),
    "ast": Preset(
        'torchaudio.compliance.kaldi.fbank(num_mel_bins=128, window_type="hanning"), as AST and AudioMAE call it; '
        "transformers.ASTFeatureExtractor before its normalisation",
        _KALDI | {"window": "hann_symmetric", "n_mels": 128},
    ),
    "beats": Preset(
        "torchaudio.compliance.kaldi.fbank(waveform * 2**15, num_mel_bins=128), as BEATs calls it",
        _KALDI | {"sample_scale": 32768.0, "n_mels": 128},
    ),
    "clap": Preset('transformers.ClapFeatureExtractor(truncation="rand_trunc")', _CLAP),
    "clap_fusion": Preset(
        'transformers.ClapFeatureExtractor(truncation="fusion")', _CLAP | {"mel_scale": "htk", "mel_norm": "none"}
    ),
    "vggish": Preset(
        "mel_features.log_mel_spectrogram with VGGish's parameters (tensorflow/models, audioset/vggish)",
        {
            "sample_rate": 16000.0,
            "n_fft": 512,
            "hop_length": 160,
            "win_length": 400,
            "window": "hann",
            "framing": "inside_window",
            "power": 1,
            "f_min": 125.0,
            "f_max": 7500.0,
            "mel_scale": "kaldi",
            "mel_norm": "none",
            "offset": 0.01,
            "relative": False,
        },
    ),
    "librosa": Preset(
        "librosa.power_to_db(librosa.feature.melspectrogram())",
        _STFT
        | {
            "n_fft": 2048,
            "hop_length": 512,
            "pad_mode": "constant",
            "n_mels": 128,
            "log": "db",
            "floor": 1e-10,
            "dynamic_range": 80.0,
        },
    ),
    "torchaudio": Preset(
        "torchaudio.transforms.MelSpectrogram(), the power without a logarithm",
        _STFT
        | {
            "sample_rate": 16000.0,
            "n_fft": 400,
            "hop_length": 200,
            "n_mels": 128,
            "mel_scale": "htk",
            "mel_norm": "none",
            "log": "none",
        },
    ),
}
"""By name. MERLOT Reserve's arguments are the defaults of the others."""
