"""In place of openai-whisper's whisper.audio."""

from __future__ import annotations

import numpy as np
import torch

from reserve_kernels.log_mel import log_mel_spectrogram as spectrogram

__all__ = ["log_mel_spectrogram"]

_BELOW_LARGEST = 8.0


def log_mel_spectrogram(
    audio: str | np.ndarray | torch.Tensor,
    n_mels: int = 80,
    padding: int = 0,
    device: str | torch.device | None = None,
) -> torch.Tensor:
    """Whisper's features, as whisper.audio.log_mel_spectrogram returns them.

    Args:
        audio: [..., samples] at 16 kHz, an array or a tensor, or the path of a file, which needs openai-whisper and
            ffmpeg. int16 samples are divided by 32768.
        n_mels: 80, or 128 for large-v3.
        padding: zeros to append.
        device: where to compute; by default where `audio` is.

    Returns:
        float32 [..., n_mels, samples // 160], from about -1 to 1.5. As in the original, the values of a batch are
        limited to a range below the largest of the whole batch; `preset="whisper"` of the op limits each clip to its
        own.

    Raises:
        TypeError: audio is none of these.
        ValueError: n_mels is neither 80 nor 128.
        ModuleNotFoundError: a path without openai-whisper.
    """
    if n_mels not in (80, 128):
        raise ValueError(f"n_mels must be 80 or 128; got {n_mels!r}")
    if isinstance(audio, str):
        audio = _load(audio)
    if not isinstance(audio, (np.ndarray, torch.Tensor)):
        raise TypeError(f"audio must be a path, a NumPy array or a torch.Tensor; got {type(audio).__name__}")
    samples = torch.from_numpy(np.ascontiguousarray(audio)) if isinstance(audio, np.ndarray) else audio
    if samples.is_floating_point():
        samples = samples.to(torch.float32)
    if device is not None:
        samples = samples.to(device)
    if padding > 0:
        samples = torch.nn.functional.pad(samples, (0, padding))
    preset = "whisper" if n_mels == 80 else "whisper_128"
    if samples.dim() == 1:
        return spectrogram(samples, preset=preset)
    out = spectrogram(samples, preset=preset, dynamic_range=float("inf"), out_scale=1.0, out_shift=0.0)
    if out.numel() == 0:
        # No clip or no frame, and so no largest value.
        return out
    return (torch.maximum(out, out.max() - _BELOW_LARGEST) + 4.0) / 4.0


def _load(path: str) -> np.ndarray:
    try:
        from whisper.audio import load_audio
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "audio is a path, which openai-whisper decodes: pip install openai-whisper, or pass samples at 16 kHz"
        ) from error
    return load_audio(path)
