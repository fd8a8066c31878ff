"""Frames and sound of one file at once, each thread with the file open for itself.

For a caller that waits for a single file. Many files are decoded faster by a process for each core.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from reserve.data.decode.protocol import Deadline, FileDecoder, Media, MediaLimits, Soundtrack, check_times

_TIMES_A_PART = 4
"""A part costs decoding from the key frame before its first time. Small parts balance threads."""

_Job = Callable[[Media], Any]


class ParallelReader:
    """Decodes `path` with up to `threads` threads. Results and errors are those of `Media`; `limits` hold for each
    call, with one deadline for all of its threads. The first error of a thread ends the others."""

    def __init__(self, decoder: FileDecoder, path: str | Path, limits: MediaLimits | None = None, *, threads: int = 2):
        if threads < 1:
            raise ValueError(f"threads must be at least 1; got {threads}")
        self._decoder, self._path, self.limits = decoder, path, limits or MediaLimits()
        self._threads = threads

    def open(self) -> Media:
        """The file, for one thread."""
        return self._decoder.open(self._path, self.limits)

    def frames(self, times: Sequence[float]) -> list[np.ndarray]:
        """See `Media.frames`; all of them in memory."""
        return _joined(self._results(self._parts(times)))

    def frames_and_sound(
        self, times: Sequence[float], *, track: int = 0, sample_rate: int = 22050
    ) -> tuple[list[np.ndarray], Soundtrack]:
        """See `Media.frames` and `Media.soundtrack`."""
        sound = partial(_soundtrack, track=track, sample_rate=sample_rate)
        soundtrack, *parts = self._results([sound, *self._parts(times)])
        return _joined(parts), soundtrack

    def _parts(self, times: Sequence[float]) -> list[_Job]:
        check_times(times)
        size = len(times) if self._threads == 1 else min(_TIMES_A_PART, -(-len(times) // self._threads))
        return [partial(_frames, times=times[first : first + size]) for first in range(0, len(times), size or 1)]

    def _results(self, jobs: Sequence[_Job]) -> list[Any]:
        """What each job returns. A thread opens the file once and takes jobs until none is left."""
        work = _Work(jobs, Deadline(self.limits.max_decode_seconds))
        try:
            with ThreadPoolExecutor(self._threads) as pool:
                for _ in range(min(self._threads, len(jobs))):
                    pool.submit(self._take, work)
        except BaseException:  # such as Ctrl-C while this thread waits
            work.end()
            raise
        work.check()
        return work.results

    def _take(self, work: _Work) -> None:
        try:
            with self._decoder.open(self._path, self.limits, work.deadline) as media:
                while (taken := work.take()) is not None:
                    place, job = taken
                    work.results[place] = job(media)
        except BaseException as error:
            work.fail(error)


class _Work:
    """The jobs of one call, and what has become of them."""

    def __init__(self, jobs: Sequence[_Job], deadline: Deadline) -> None:
        self._left = deque(enumerate(jobs))
        self.deadline = deadline
        self.results: list[Any] = [None] * len(jobs)
        self._errors: list[BaseException] = []

    def take(self) -> tuple[int, _Job] | None:
        """The next job with its place among the results; None if none is left."""
        try:
            return self._left.popleft()
        except IndexError:
            return None

    def fail(self, error: BaseException) -> None:
        """Ends the other threads; their errors come after this one."""
        self._errors.append(error)
        self.end()

    def end(self) -> None:
        """Ends the threads at their next look at the deadline."""
        self._left.clear()
        self.deadline.expire()

    def check(self) -> None:
        """Raises the first error. Frames are let go of: the error's traceback refers to this object."""
        if self._errors:
            error = self._errors[0]
            self._errors, self.results = [], []
            try:
                raise error
            finally:
                del error


def _frames(media: Media, times: Sequence[float]) -> list[np.ndarray]:
    return list(media.frames(times))


def _soundtrack(media: Media, track: int, sample_rate: int) -> Soundtrack:
    return media.soundtrack(track=track, sample_rate=sample_rate)


def _joined(parts: Sequence[list[np.ndarray]]) -> list[np.ndarray]:
    return [frame for part in parts for frame in part]
