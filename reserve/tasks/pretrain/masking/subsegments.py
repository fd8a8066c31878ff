"""Positions of the audio subsegments in a segment, in mel frames and in seconds (SPEC 1, 7)."""

from __future__ import annotations

import numpy as np

from reserve.config import DataConfig


def draw_subsegment_starts(rng: np.random.Generator, data: DataConfig, audio_seq_length: int = 60) -> np.ndarray:
    """The first mel frame of each audio subsegment in training, int32 [S, A] (SPEC 1).

    A segment's frames beyond its A subsegments of `audio_seq_length` frames are distributed at random before, between
    and after them. Raises ValueError if the subsegments do not fit in a segment.
    """
    spare = _spare_frames(data, audio_seq_length)
    shares = rng.random((data.num_segments, data.num_audio_subsegments + 1))
    gaps = spare * np.cumsum(shares / shares.sum(1, keepdims=True), axis=1)[:, :-1]
    return gaps.astype(np.int32) + _packed_starts(data, audio_seq_length)


def inference_subsegment_starts(data: DataConfig, audio_seq_length: int = 60) -> np.ndarray:
    """The first mel frame of each audio subsegment at inference, int32 [S, A]: equal gaps, so 2, 64, 126 (SPEC 1).

    Raises ValueError if the subsegments do not fit in a segment.
    """
    gap = _spare_frames(data, audio_seq_length) // (data.num_audio_subsegments + 1)
    starts = _packed_starts(data, audio_seq_length) + gap * np.arange(1, data.num_audio_subsegments + 1)
    return np.tile(starts.astype(np.int32), (data.num_segments, 1))


def subsegment_windows(
    starts: np.ndarray, data: DataConfig, audio_seq_length: int = 60
) -> tuple[np.ndarray, np.ndarray]:
    """Start and end of the audio in each subsegment, float32 in the shape of `starts`.

    In seconds from the start of the segment, divided by its playback speed. The analysis windows of the first and last
    frames extend half a window beyond their centres (SPEC 7). Computed in float32 in the reference's order, so that
    words at equal distances from two subsegments are assigned as in the reference.
    """
    hop = data.fft_hop_length / data.sample_rate
    window = data.fft_window_size / data.sample_rate
    start = starts.astype(np.float32) * np.float32(hop) - np.float32(window / 2)
    end = start + np.float32(audio_seq_length * hop) + np.float32(window)
    return start, end


def _packed_starts(data: DataConfig, audio_seq_length: int) -> np.ndarray:
    return np.arange(data.num_audio_subsegments, dtype=np.int32) * audio_seq_length


def _spare_frames(data: DataConfig, audio_seq_length: int) -> int:
    spare = data.spec_size - data.num_audio_subsegments * audio_seq_length
    if spare < 0:
        raise ValueError(
            f"data.spec_size must hold data.num_audio_subsegments * model.audio_seq_length mel frames; got "
            f"{data.spec_size} for {data.num_audio_subsegments} * {audio_seq_length}"
        )
    return spare
