"""Frames and sound of one file at once, each thread with the file open for itself.

For a caller that waits for a single file. Many files are decoded faster by a process for each core.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from reserve.data.decode.protocol import Deadline, FileDecoder, Media, MediaLimits, Soundtrack, check_times

_TIMES_A_PART = 4
"""A part costs opening the file, and decoding from the key frame before its first time. Small parts balance threads."""


class ParallelReader:
    """Decodes `path` with up to `threads` threads. Results and errors are those of `Media`; `limits` hold for each
    call, with one deadline for all of its threads."""

    def __init__(self, decoder: FileDecoder, path: str | Path, limits: MediaLimits | None = None, *, threads: int = 2):
        if threads < 1:
            raise ValueError(f"threads must be at least 1; got {threads}")
        self._decoder, self._path, self._limits = decoder, path, limits or MediaLimits()
        self._threads = threads

    def open(self) -> Media:
        """The file, for one thread."""
        return self._decoder.open(self._path, self._limits)

    def frames(self, times: Sequence[float]) -> list[np.ndarray]:
        """See `Media.frames`; all of them in memory."""
        check_times(times)
        deadline = Deadline(self._limits.max_decode_seconds)
        with ThreadPoolExecutor(self._threads) as pool:
            return _joined(self._submit_frames(pool, times, deadline))

    def frames_and_sound(
        self, times: Sequence[float], *, track: int = 0, sample_rate: int = 22050
    ) -> tuple[list[np.ndarray], Soundtrack]:
        """See `Media.frames` and `Media.soundtrack`."""
        check_times(times)
        deadline = Deadline(self._limits.max_decode_seconds)
        with ThreadPoolExecutor(self._threads) as pool:
            sound = pool.submit(self._sound, deadline, track, sample_rate)
            parts = self._submit_frames(pool, times, deadline)
            return _joined(parts), sound.result()

    def _submit_frames(
        self, pool: ThreadPoolExecutor, times: Sequence[float], deadline: Deadline
    ) -> list[Future[list[np.ndarray]]]:
        size = len(times) if self._threads == 1 else min(_TIMES_A_PART, -(-len(times) // self._threads))
        return [
            pool.submit(self._part, times[first : first + size], deadline) for first in range(0, len(times), size or 1)
        ]

    def _part(self, times: Sequence[float], deadline: Deadline) -> list[np.ndarray]:
        with self._decoder.open(self._path, self._limits, deadline) as media:
            return list(media.frames(times))

    def _sound(self, deadline: Deadline, track: int, sample_rate: int) -> Soundtrack:
        with self._decoder.open(self._path, self._limits, deadline) as media:
            return media.soundtrack(track=track, sample_rate=sample_rate)


def _joined(parts: Sequence[Future[list[np.ndarray]]]) -> list[np.ndarray]:
    try:
        return [frame for part in parts for frame in part.result()]
    finally:
        for part in parts:
            part.cancel()
