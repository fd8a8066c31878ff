"""The moments of a clip that a question shows: seven segments around its annotated span (SPEC 10.8)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

FRAME_RATE = 3.0
"""Frames per second of TVQA's pictures."""
SEGMENT_SECONDS = 4.6666667
"""Length of a segment; the digits decide roundings and are the release's."""
MAX_SEGMENTS = 7


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What a question shows of its clip: `times` float64 [n, 2] seconds of n segments in order, `frames` int [n] the
    number of each segment's picture, and `localization`, start and end of the annotated span as fractions of the
    excerpt; it can lie outside of [0, 1]."""

    times: np.ndarray
    frames: np.ndarray
    localization: tuple[float, float]

    def __len__(self) -> int:
        return len(self.times)

    @property
    def localization_text(self) -> str:
        """The span as percentages, truncated toward zero: "61 to 95"."""
        start, end = (int(100 * fraction) for fraction in self.localization)
        return f"{start} to {end}"


def choose_excerpt(span: tuple[float, float], frame_numbers: Collection[int]) -> Excerpt:
    """The excerpt around `span` (seconds) of a clip that has the pictures `frame_numbers`, counted from 1.

    A segment whose picture is missing is dropped; `frame_numbers` must not be empty.
    """
    last = max(frame_numbers)
    start, end = clamped_span(span, last)
    times = segment_times((start, end), last)
    frames = [frame_number(*segment, last) for segment in times]
    present = set(frame_numbers)
    kept = [(segment, frame) for segment, frame in zip(times, frames, strict=True) if frame in present]
    if not kept:
        return Excerpt(np.empty((0, 2)), np.empty(0, np.int64), (0.0, 0.0))
    first = kept[0][0][0]
    # As released: the end counts even where its segment is dropped.
    duration = times[-1][1] - first
    return Excerpt(
        np.array([segment for segment, _ in kept]),
        np.array([frame for _, frame in kept], np.int64),
        ((start - first) / duration, (end - first) / duration),
    )


def clamped_span(span: tuple[float, float], last_frame: int) -> tuple[float, float]:
    """`span` within the clip, whose last picture is number `last_frame`. A span beyond the clip ends before it
    starts."""
    return max(span[0], 0.0), min(span[1], _max_time(last_frame))


def segment_times(span: tuple[float, float], last_frame: int) -> list[tuple[float, float]]:
    """At most seven segments in order: the one around the middle of `span`, then its neighbours before and after in
    turn. Near an end of the clip, those that lie beyond it go to the other side."""
    end_of_clip = _max_time(last_frame)
    half = SEGMENT_SECONDS / 2
    middle = _to_thirds((span[0] + span[1]) / 2)
    times = [(middle - half, middle + half)]
    for step in range(1, MAX_SEGMENTS):
        for shift in (-step * SEGMENT_SECONDS, step * SEGMENT_SECONDS):
            start, end = (_to_thirds(side + shift) for side in times[0])
            if end >= 0 and start <= end_of_clip and len(times) < MAX_SEGMENTS:
                times.append((start, end))
    return sorted(times)


def frame_number(start: float, end: float, last_frame: int) -> int:
    """The picture in the middle of a segment, counted from 1."""
    return min(max(round(FRAME_RATE * (start + end) / 2) + 1, 1), last_frame)


def cue_segments(times: np.ndarray, cues: Sequence[tuple[float, float]]) -> np.ndarray:
    """The segment of each subtitle (start, end seconds), -1 for none: int [cues].

    A subtitle belongs to the segment in which its middle lies. A segment reaches to the start of the next one.
    """
    middles = np.array([(start + end) / 2 for start, end in cues], np.float64)
    bounds = np.append(times[:, 0], times[-1, 1])
    segment = np.searchsorted(bounds, middles) - 1
    return np.where(segment < len(times), segment, -1)


def _max_time(last_frame: int) -> float:
    return (last_frame - 1) / FRAME_RATE


def _to_thirds(seconds: float) -> float:
    # Halves go to the even third, as Python rounds.
    return round(FRAME_RATE * seconds) / FRAME_RATE
