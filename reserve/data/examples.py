"""Which segments make an example (SPEC 1): sixteen consecutive ones of a video, the leftovers of several together."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reserve.data.errors import TooFewSegments

_FROM_FRONT = 0.8
"""Probability that a part of a video is taken from its front rather than its end, the reference's figure."""


@dataclass(frozen=True, slots=True)
class Run:
    """Segments `start` to `stop` - 1 of video `video`."""

    video: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Example:
    """The segments of one example as runs of consecutive segments, in order."""

    runs: tuple[Run, ...]

    @property
    def segments(self) -> list[tuple[int, int]]:
        """(video, segment) of every segment."""
        return [(run.video, index) for run in self.runs for index in range(run.start, run.stop)]

    @property
    def videos(self) -> frozenset[int]:
        """Indices of the videos it shows."""
        return frozenset(run.video for run in self.runs)

    @property
    def video_src_index(self) -> np.ndarray:
        """int32 [segments]: which of the example's source videos each segment comes from, counted from 0."""
        changes = [before.video != after.video for before, after in zip(self.runs, self.runs[1:], strict=False)]
        sources = np.cumsum([0, *changes], dtype=np.int32)
        return np.repeat(sources, [len(run) for run in self.runs]).astype(np.int32)


def assemble_examples(segment_counts: Sequence[int], num_segments: int = 16, *, seed: int = 0) -> list[Example]:
    """Examples of `num_segments` segments each, from videos that have `segment_counts` segments.

    Every video gives as many runs of `num_segments` consecutive segments as it has. What is left over is joined,
    longest first: each example takes the longest leftover, then the longest that still fit, and where none fits a part
    of one drawn at random. No segment is in two examples; fewer than `num_segments` stay unused. The same arguments
    give the same examples. Raises TooFewSegments where not even one example can be filled.
    """
    if num_segments < 1:
        raise ValueError(f"num_segments must be at least 1; got {num_segments}")
    total = sum(segment_counts)
    if total < num_segments:
        raise TooFewSegments(
            f"the {len(segment_counts)} videos have {total} segments in all; one example needs {num_segments}"
        )
    rng = np.random.default_rng(np.random.SeedSequence([seed, total, len(segment_counts)]))
    examples, leftovers = [], _Leftovers(num_segments)
    for video, count in enumerate(segment_counts):
        rest = Run(video, 0, count)
        while len(rest) >= num_segments:
            taken, rest = _take(rest, num_segments, rng)
            examples.append(Example((taken,)))
        leftovers.add(rest)
    while leftovers.total >= num_segments:
        examples.append(leftovers.join(num_segments, rng))
    return examples


def _take(run: Run, size: int, rng: np.random.Generator) -> tuple[Run, Run]:
    """`size` segments of a run from its front or its end, and the rest."""
    if rng.uniform() < _FROM_FRONT:
        middle = run.start + size
        return Run(run.video, run.start, middle), Run(run.video, middle, run.stop)
    middle = run.stop - size
    return Run(run.video, middle, run.stop), Run(run.video, run.start, middle)


class _Leftovers:
    """Runs too short for an example, by length."""

    def __init__(self, num_segments: int) -> None:
        self._by_length: list[deque[Run]] = [deque() for _ in range(num_segments)]
        self.total = 0

    def add(self, run: Run) -> None:
        if len(run):
            self._by_length[len(run)].append(run)
            self.total += len(run)

    def join(self, num_segments: int, rng: np.random.Generator) -> Example:
        """Takes `num_segments` segments out; `total` must be at least as many."""
        runs: list[Run] = []
        missing = num_segments
        while missing:
            run = self._pop_longest(missing) or self._pop_part(missing, rng)
            runs.append(run)
            missing -= len(run)
        return Example(tuple(runs))

    def _pop_longest(self, at_most: int) -> Run | None:
        """The longest run of at most `at_most` segments; of equal ones the first added."""
        for runs in self._by_length[at_most::-1]:
            if runs:
                run = runs.popleft()
                self.total -= len(run)
                return run
        return None

    def _pop_part(self, size: int, rng: np.random.Generator) -> Run:
        """`size` segments of a longer run drawn at random."""
        longer = [runs for runs in self._by_length if runs]
        lengths = np.array([len(runs) for runs in longer])
        runs = longer[rng.choice(len(longer), p=lengths / lengths.sum())]
        place = int(rng.integers(len(runs)))
        run = runs[place]
        del runs[place]
        self.total -= len(run)
        part, rest = _take(run, size, rng)
        self.add(rest)
        return part
