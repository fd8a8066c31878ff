"""Which segments form an example (SPEC 1): 16 consecutive ones of a video, or the leftovers of several videos."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reserve.errors import TooFewSegments

_FROM_FRONT = 0.8
"""Probability of taking part of a video from its front rather than its end, as in the reference."""


@dataclass(frozen=True, slots=True)
class SegmentRange:
    """Segments `start` to `stop` - 1 of video `video`."""

    video: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class ExamplePlan:
    """The segments of one example as ranges of consecutive segments, in order."""

    ranges: tuple[SegmentRange, ...]

    @property
    def segments(self) -> list[tuple[int, int]]:
        """(video, segment) of every segment."""
        return [(part.video, index) for part in self.ranges for index in range(part.start, part.stop)]

    @property
    def videos(self) -> frozenset[int]:
        """Indices of the videos it comes from."""
        return frozenset(part.video for part in self.ranges)

    @property
    def video_src_index(self) -> np.ndarray:
        """int32 [segments]: which of the example's source videos each segment comes from, counted from 0."""
        changes = [before.video != after.video for before, after in zip(self.ranges, self.ranges[1:], strict=False)]
        sources = np.cumsum([0, *changes], dtype=np.int32)
        return np.repeat(sources, [len(part) for part in self.ranges]).astype(np.int32)


def plan_examples(segment_counts: Sequence[int], num_segments: int = 16, *, seed: int = 0) -> list[ExamplePlan]:
    """Plans examples of `num_segments` segments each, from videos that have `segment_counts` segments.

    Every video gives as many ranges of `num_segments` consecutive segments as possible. Leftovers are joined, longest
    first: each example takes the longest leftover, then the longest that still fit, and if none fits, part of a random
    one. No segment is in two examples; fewer than `num_segments` segments stay unused. The result is a function of the
    arguments. Raises TooFewSegments if the segments do not fill one example.
    """
    if num_segments < 1:
        raise ValueError(f"num_segments must be at least 1; got {num_segments}")
    total = sum(segment_counts)
    if total < num_segments:
        raise TooFewSegments(
            f"the {len(segment_counts)} videos have {total} segments in all; one example needs {num_segments}"
        )
    rng = np.random.default_rng(np.random.SeedSequence([seed, total, len(segment_counts)]))
    plans, leftovers = [], _Leftovers(num_segments)
    for video, count in enumerate(segment_counts):
        rest = SegmentRange(video, 0, count)
        while len(rest) >= num_segments:
            taken, rest = _take(rest, num_segments, rng)
            plans.append(ExamplePlan((taken,)))
        leftovers.add(rest)
    while leftovers.total >= num_segments:
        plans.append(leftovers.join(num_segments, rng))
    return plans


def _take(part: SegmentRange, size: int, rng: np.random.Generator) -> tuple[SegmentRange, SegmentRange]:
    """Splits off `size` segments from the front or the end of a range: those segments, and the rest."""
    if rng.uniform() < _FROM_FRONT:
        middle = part.start + size
        return SegmentRange(part.video, part.start, middle), SegmentRange(part.video, middle, part.stop)
    middle = part.stop - size
    return SegmentRange(part.video, middle, part.stop), SegmentRange(part.video, part.start, middle)


class _Leftovers:
    """Ranges that are too short for an example, by length."""

    def __init__(self, num_segments: int) -> None:
        self._by_length: list[deque[SegmentRange]] = [deque() for _ in range(num_segments)]
        self.total = 0

    def add(self, part: SegmentRange) -> None:
        if len(part):
            self._by_length[len(part)].append(part)
            self.total += len(part)

    def join(self, num_segments: int, rng: np.random.Generator) -> ExamplePlan:
        """Removes `num_segments` segments and joins them; `total` must be at least as many."""
        parts: list[SegmentRange] = []
        missing = num_segments
        while missing:
            part = self._pop_longest(missing) or self._pop_part(missing, rng)
            parts.append(part)
            missing -= len(part)
        return ExamplePlan(tuple(parts))

    def _pop_longest(self, at_most: int) -> SegmentRange | None:
        """Removes the longest range of at most `at_most` segments, the first added among equals."""
        for parts in self._by_length[at_most::-1]:
            if parts:
                part = parts.popleft()
                self.total -= len(part)
                return part
        return None

    def _pop_part(self, size: int, rng: np.random.Generator) -> SegmentRange:
        """Removes `size` segments of a random longer range."""
        longer = [parts for parts in self._by_length if parts]
        lengths = np.array([len(parts) for parts in longer])
        parts = longer[rng.choice(len(longer), p=lengths / lengths.sum())]
        place = int(rng.integers(len(parts)))
        part = parts[place]
        del parts[place]
        self.total -= len(part)
        taken, rest = _take(part, size, rng)
        self.add(rest)
        return taken
