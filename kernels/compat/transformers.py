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


class WhisperFeatureExtractor(transformers.WhisperFeatureExtractor):
    """transformers.WhisperFeatureExtractor, with the same arguments, results and files."""

    def _torch_extract_fbank_features(self, waveform: np.ndarray, device: str = "cpu") -> np.ndarray:
        samples = torch.from_numpy(waveform).to(device, torch.float32)
        if self.dither != 0.0:
            samples = samples + self.dither * torch.randn(samples.shape, dtype=samples.dtype, device=samples.device)
        out = log_mel_spectrogram(
            samples,
            preset="whisper",
            sample_rate=float(self.sampling_rate),
            n_fft=self.n_fft,
            hop_length=self.hop_length,
            n_mels=self.feature_size,
            f_max=8000.0,
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
    """transformers.ClapFeatureExtractor, with the same arguments, results and files; computed in float32."""

    def _np_extract_fbank_features(self, waveform: np.ndarray, mel_filters: Any = None) -> np.ndarray:
        out = log_mel_spectrogram(
            torch.from_numpy(np.asarray(waveform, np.float32)),
            # The original passes one of its two filterbanks.
            preset="clap_fusion" if mel_filters is self.mel_filters else "clap",
            sample_rate=float(self.sampling_rate),
            n_fft=self.fft_window_size,
            hop_length=self.hop_length,
            n_mels=self.mel_filters.shape[1],
            f_min=float(self.frequency_min),
            f_max=float(self.frequency_max),
        )
        return out.numpy()
