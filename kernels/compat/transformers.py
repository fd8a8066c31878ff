"""In place of transformers' feature extractors: subclasses that compute their spectrograms by log_mel_spectrogram.

Everything else, from checks to padding and saving, is transformers' own code, which importing this module imports.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers

from reserve_kernels.log_mel import log_mel_spectrogram

__all__ = ["ASTFeatureExtractor", "ClapFeatureExtractor", "WhisperFeatureExtractor"]


_WHISPER_TOP = 8000.0
"""Hz that Whisper's bands reach at every sampling rate."""


def _rate(sampling_rate: int, n_fft: int) -> float:
    """The rate at which the frequencies of a transform lie where transformers says: from 0 to `sampling_rate // 2`."""
    return n_fft * (sampling_rate // 2) / (n_fft // 2)


class WhisperFeatureExtractor(transformers.WhisperFeatureExtractor):
    """transformers.WhisperFeatureExtractor, with the same arguments, results and files.

    Raises ValueError for a sampling rate below 16000, at which the original has bands beyond half of it.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.sampling_rate // 2 < _WHISPER_TOP:
            raise ValueError(f"sampling_rate must be at least 16000; got {self.sampling_rate}")

    def _torch_extract_fbank_features(self, waveform: np.ndarray, device: str = "cpu") -> np.ndarray:
        samples = torch.from_numpy(waveform).to(device, torch.float32)
        if self.dither != 0.0:
            samples = samples + self.dither * torch.randn(samples.shape, dtype=samples.dtype, device=samples.device)
        out = log_mel_spectrogram(
            samples,
            preset="whisper",
            sample_rate=_rate(self.sampling_rate, self.n_fft),
            n_fft=self.n_fft,
            hop_length=self.hop_length,
            n_mels=self.feature_size,
            f_max=_WHISPER_TOP,
        )
        return out.cpu().numpy()


class ASTFeatureExtractor(transformers.ASTFeatureExtractor):
    """transformers.ASTFeatureExtractor as it is with torchaudio, with the same arguments, results and files.

    Where torchaudio is missing, the original computes something else by itself; this does not.
    """

    def _extract_fbank_features(self, waveform: np.ndarray, max_length: int) -> np.ndarray:
        rate = self.sampling_rate
        length = int(rate * 0.025)
        fbank = log_mel_spectrogram(
            torch.from_numpy(np.asarray(waveform, np.float32)),
            preset="ast",
            sample_rate=float(rate),
            n_fft=1 << (length - 1).bit_length(),
            win_length=length,
            hop_length=int(rate * 0.010),
            n_mels=self.num_mel_bins,
        )[:max_length]
        return torch.nn.functional.pad(fbank, (0, 0, 0, max_length - len(fbank))).numpy()


class ClapFeatureExtractor(transformers.ClapFeatureExtractor):
    """transformers.ClapFeatureExtractor, with the same arguments, results and files; computed in float32.

    Raises ValueError unless 0 <= frequency_min < frequency_max <= sampling_rate // 2, beyond which the original has
    empty bands.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        half = self.sampling_rate // 2
        if not 0 <= self.frequency_min < self.frequency_max <= half:
            raise ValueError(
                f"frequency_min and frequency_max must satisfy 0 <= frequency_min < frequency_max <= "
                f"sampling_rate // 2 = {half}; got {self.frequency_min} and {self.frequency_max}"
            )

    def _np_extract_fbank_features(self, waveform: np.ndarray, mel_filters: Any = None) -> np.ndarray:
        out = log_mel_spectrogram(
            torch.from_numpy(np.asarray(waveform, np.float32)),
            # The original passes one of its two filterbanks.
            preset="clap_fusion" if mel_filters is self.mel_filters else "clap",
            sample_rate=_rate(self.sampling_rate, self.fft_window_size),
            n_fft=self.fft_window_size,
            hop_length=self.hop_length,
            n_mels=self.mel_filters.shape[1],
            f_min=float(self.frequency_min),
            f_max=float(self.frequency_max),
        )
        return out.numpy()
