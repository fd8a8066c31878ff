"""A clip's sound as log-mels of its segments (SPEC 10.8)."""

from __future__ import annotations

import numpy as np

SAMPLE_RATE = 22620
"""Hz. The spectrogram takes these samples for 22050 Hz: a segment of 4.67 s then has the frames of three subsegments
without gaps."""


def segment_samples(times: np.ndarray) -> np.ndarray:
    """Where segments lie in a track: int64 [n, 3], the first sample, the one after the last, and the zeros in front.

    `times` [n, 2] seconds. A segment that starts before the track has one zero more than it lacks samples, as released.
    """
    samples = (SAMPLE_RATE * times).astype(np.int64)
    zeros = np.where(samples[:, 0] < 0, 1 - samples[:, 0], 0)
    return np.column_stack((samples, zeros))


def segment_log_mels(waveform: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Log-mels of segments of a track: float32 [n, 180, 65], the last channel 1, the playback speed.

    `waveform` float32 [samples] at SAMPLE_RATE, the whole track in [-1, 1]; it is divided by its peak. `times` [n, 2]
    seconds; beyond the track there is silence.
    """
    import torch

    from reserve_kernels import log_mel_spectrogram

    # The release divides int16 samples by at least 1, so a silent track stays silent.
    peak = max(float(np.abs(waveform).max(initial=0.0)), 1 / 32768)
    clips = [_clip(waveform, *row) / np.float32(peak) for row in segment_samples(times).tolist()]
    lengths = [len(clip) for clip in clips]
    spectrograms = log_mel_spectrogram(
        torch.from_numpy(np.concatenate(clips)),
        offsets=torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int64),
        max_samples=max(lengths),
        append_speed=True,
    )
    return spectrograms.numpy()


def _clip(waveform: np.ndarray, start: int, stop: int, zeros: int) -> np.ndarray:
    sound = waveform[max(start, 0) : max(stop, 0)]
    missing = max(stop - max(start, 0) - len(sound), 0)
    # All of a segment that ends before the track is in front of it.
    return np.pad(sound, (min(zeros, stop - start + 1), missing)).astype(np.float32)
