"""The functions that the presets of log_mel_spectrogram stand for, each as its users call it.

`ORIGINALS[preset]` is a name and a function that returns the original: [samples] -> [frames, bands] or [bands, frames],
as the preset does. It raises Missing where the library is not installed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from reserve_kernels.bench.case import module

Original = Callable[[torch.Tensor], torch.Tensor]


def _whisper(bands: int) -> Original:
    audio = module("whisper.audio")
    return lambda samples: audio.log_mel_spectrogram(samples, n_mels=bands)


def _kaldi(scale: float = 1.0, **options: object) -> Original:
    kaldi = module("torchaudio.compliance.kaldi")
    return lambda samples: kaldi.fbank(samples[None] * scale, **options)


def _clap(truncation: str) -> Original:
    extractor = module("transformers").ClapFeatureExtractor()
    filters = extractor.mel_filters if truncation == "fusion" else extractor.mel_filters_slaney
    return lambda samples: torch.from_numpy(extractor._np_extract_fbank_features(samples.numpy(), filters))


def _vggish() -> Original:
    features, parameters = module("torchvggish.mel_features"), module("torchvggish.vggish_params")

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
    librosa = module("librosa")
    return lambda samples: torch.from_numpy(librosa.power_to_db(librosa.feature.melspectrogram(y=samples.numpy())))


def _reserve() -> Original:
    """SPEC 2 by librosa, with the padding that it had when the model was released."""
    librosa = module("librosa")
    window = np.hanning(1536).astype(np.float32)

    def run(samples: torch.Tensor) -> torch.Tensor:
        mel = librosa.feature.melspectrogram(
            y=samples.numpy(),
            sr=22050,
            n_fft=1536,
            hop_length=588,
            window=window,
            pad_mode="reflect",
            n_mels=64,
            fmin=20.0,
            fmax=11025.0,
        )
        return torch.from_numpy((np.log(mel + 0.1) - np.log(0.1)).T)

    return run


def _torchaudio() -> Original:
    transforms = module("torchaudio.transforms")
    with warnings.catch_warnings():
        # Of bands without a frequency: its defaults have one.
        warnings.simplefilter("ignore")
        return transforms.MelSpectrogram()


ORIGINALS: dict[str, tuple[str, Callable[[], Original]]] = {
    "reserve": ("librosa", _reserve),
    "whisper": ("openai-whisper", lambda: _whisper(80)),
    "whisper_128": ("openai-whisper", lambda: _whisper(128)),
    "kaldi": ("torchaudio kaldi.fbank", lambda: _kaldi(num_mel_bins=80)),
    "ast": ("torchaudio kaldi.fbank", lambda: _kaldi(num_mel_bins=128, window_type="hanning")),
    "beats": ("torchaudio kaldi.fbank", lambda: _kaldi(2.0**15, num_mel_bins=128)),
    "clap": ("transformers", lambda: _clap("rand_trunc")),
    "clap_fusion": ("transformers", lambda: _clap("fusion")),
    "vggish": ("VGGish's NumPy", _vggish),
    "librosa": ("librosa", _librosa),
    "torchaudio": ("torchaudio", _torchaudio),
}
"""By preset."""

NATIVE_FBANK: dict[str, dict[str, Any]] = {"kaldi": {"mel_opts.num_bins": 80}}
"""What kaldi-native-fbank computes too, by the options that are not its defaults. It refuses the 128 bands of the other
presets, of which one holds no frequency of the transform."""


def native_fbank(options: dict[str, Any]) -> Original:
    """kaldi-native-fbank's features without dither, by its usual calls."""
    knf = module("kaldi_native_fbank")
    chosen = knf.FbankOptions()
    chosen.frame_opts.dither = 0.0
    for name, value in options.items():
        part, _, field = name.rpartition(".")
        setattr(getattr(chosen, part), field, value)

    def run(samples: torch.Tensor) -> torch.Tensor:
        fbank = knf.OnlineFbank(chosen)
        fbank.accept_waveform(16000, samples.numpy())
        fbank.input_finished()
        return torch.from_numpy(np.stack([fbank.get_frame(i) for i in range(fbank.num_frames_ready)]))

    return run
