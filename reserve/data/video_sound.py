"""The sound of a video's segments as the audio encoder's input at inference (SPEC 1, 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from reserve.config import MEL_CHANNELS, SEGMENT_SECONDS

SAMPLE_RATE = 22050
SUBSEGMENT_STARTS = (2, 64, 126)
"""First mel frame of each subsegment: the spare frames of a segment lie evenly before them."""
SUBSEGMENT_FRAMES = 60
_SAMPLES = SEGMENT_SECONDS * SAMPLE_RATE
_SMALLEST_PEAK = 1 / 32768
# Of 16-bit sound, so that a silent track stays silent.
_BATCH = 32


class TimeSpan(NamedTuple):
    """A stretch of sound in seconds: from `start` to `end`, and the `mid` that a long one is cut around."""

    start: float
    end: float
    mid: float


def normalized(waveform: np.ndarray) -> np.ndarray:
    """A whole track, of 16-bit integers or floats, divided by its peak: float32 [samples] in [-1, 1]."""
    # Not of the absolute values: they would take as much memory as the track, and -32768 has none in 16 bits.
    peak = max(-float(waveform.min(initial=0)), float(waveform.max(initial=0)), _SMALLEST_PEAK)
    return np.divide(waveform, np.float32(peak), dtype=np.float32)


def segment_sound(waveform: np.ndarray, span: tuple[float, float, float]) -> np.ndarray:
    """5 s of a track at 22050 Hz for a segment: [110250].

    A shorter segment lies in the middle of silence; one of 5 s or more is replaced by the 5 s around its `mid`. Before
    and after the track there is silence.
    """
    start, end, mid = span
    if end - start >= SEGMENT_SECONDS:
        start, end = mid - SEGMENT_SECONDS / 2, mid + SEGMENT_SECONDS / 2
    first, stop = int(SAMPLE_RATE * start), int(SAMPLE_RATE * end)
    # Rounding can make 5 s a sample longer.
    length = min(stop - first, _SAMPLES)
    left = (_SAMPLES - length) // 2
    sound = np.zeros(_SAMPLES, dtype=waveform.dtype)
    begin = max(first, 0)
    heard = waveform[begin : max(first + length, begin)]
    sound[left + begin - first :][: len(heard)] = heard
    return sound


def segment_clips(waveform: np.ndarray, spans: Sequence[tuple[float, float, float]]) -> np.ndarray:
    """The clips of segments, float32 [spans, 3, 60, 65]: log-mels of three subsegments each, in the last channel the
    playback speed 1. `waveform` is a whole track at 22050 Hz, `normalized`."""
    import torch

    from reserve_kernels import log_mel_spectrogram

    clips = np.ones((len(spans), len(SUBSEGMENT_STARTS), SUBSEGMENT_FRAMES, MEL_CHANNELS), dtype=np.float32)
    for done in range(0, len(spans), _BATCH):
        sound = np.stack([segment_sound(waveform, span) for span in spans[done : done + _BATCH]])
        mels = log_mel_spectrogram(torch.from_numpy(sound), pad_mode="reflect").numpy()
        for number, first in enumerate(SUBSEGMENT_STARTS):
            clips[done : done + len(mels), number, :, :-1] = mels[:, first : first + SUBSEGMENT_FRAMES]
    return clips
