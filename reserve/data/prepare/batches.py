"""Prepares videos with a decoder that takes the frames of several files at once, such as one on a GPU.

Worker processes do everything before the frames. One more process decodes the frames of each full batch and stores the
videos: frames are not sent between processes, a GPU belongs to one process, and a process can be ended when a file
makes the decoder hang. Planning goes on while a batch is decoded.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait

import numpy as np

from reserve.data.decode.protocol import BatchDecoder, Deadline, FrameRequest, MediaLimits
from reserve.data.prepare.jobs import Job, finish_job, skipped
from reserve.data.prepare.results import FileResult
from reserve.data.prepare.video import PlannedVideo
from reserve.data.prepare.workers import Lost, Pool, Streamer, run_items
from reserve.errors import BadInput
from reserve.fs import is_environment_failure

logger = logging.getLogger(__name__)
_WAITING_BATCHES = 2
"""Batches of planned videos that may wait in memory; planning pauses at more."""
_MOST_THREADS = 8


@dataclass(frozen=True, slots=True)
class Planned:
    """A video whose frames are still to be decoded."""

    job: Job
    plan: PlannedVideo


Batch = Sequence[Planned]
Outcome = tuple[Job, FileResult]


def prepare_in_batches(
    jobs: Iterable[Job],
    plan: Callable[[Job], PlannedVideo | FileResult],
    decoder: BatchDecoder,
    limits: MediaLimits,
    *,
    workers: int,
    timeout: float,
) -> Iterator[Outcome]:
    """Yields every job with its result as it finishes; takes a job when a worker is free for it.

    `plan` does everything before the frames, in `workers` processes of which each has `timeout` seconds per file; a
    result that it returns is final. `decoder` gives the frames, in a process of its own that has `timeout` seconds for
    each file too. A file whose frames raise BadInput, hang or end the process is skipped alone. With `workers` 0
    everything runs in this process, and nothing is killed.
    """
    if workers == 0:
        yield from _prepare_here(jobs, plan, decoder, limits)
        return
    decode = partial(_decode, decoder=decoder, limits=limits, threads=min(os.cpu_count() or 1, _MOST_THREADS))
    taken: dict[int, Job] = {}
    queue = _Queue(decoder.batch_size)
    with (
        Pool(plan, _remembered(jobs, taken), workers=workers, timeout=timeout) as planning,
        Streamer(decode, timeout) as decoding,
    ):
        while True:
            if len(queue) < _WAITING_BATCHES * decoder.batch_size:
                planning.feed()
            if not decoding.is_busy and (batch := queue.next(is_last=planning.is_done)):
                decoding.start(batch)
                planning.feed()  # there is room again
            if planning.is_done and not decoding.is_busy:
                return
            left = [seconds for each in (planning, decoding) if (seconds := each.seconds_left()) is not None]
            wait([*planning.handles, *decoding.handles], timeout=min(left, default=None))
            for index, outcome in planning.poll():
                job = taken.pop(index)
                if isinstance(outcome, PlannedVideo):
                    queue.add(Planned(job, outcome))
                else:
                    yield job, skipped(job, outcome.reason) if isinstance(outcome, Lost) else outcome
            for result in decoding.poll():
                yield from queue.finish(result)


def _remembered(jobs: Iterable[Job], taken: dict[int, Job]) -> Iterator[Job]:
    for index, job in enumerate(jobs):
        taken[index] = job
        yield job


class _Queue:
    """Planned videos on their way through a decoder of batches."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._waiting: deque[Planned] = deque()
        self._suspects: deque[Planned] = deque()
        """Those of a batch that failed as a whole: each goes alone, so that only the one at fault is blamed."""
        self._decoding: deque[Planned] = deque()
        self._is_alone = False

    def __len__(self) -> int:
        return len(self._waiting) + len(self._suspects)

    def add(self, video: Planned) -> None:
        self._waiting.append(video)

    def next(self, *, is_last: bool) -> list[Planned]:
        """The videos to decode next; none if there is no full batch yet, unless `is_last`."""
        if self._suspects:
            batch = [self._suspects.popleft()]
        elif len(self._waiting) >= self._batch_size or is_last:
            batch = [self._waiting.popleft() for _ in range(min(self._batch_size, len(self._waiting)))]
        else:
            batch = []
        self._decoding = deque(batch)
        self._is_alone = len(batch) == 1
        return batch

    def finish(self, result: FileResult | Lost) -> Iterator[Outcome]:
        """The outcome that a result of the decoding process means."""
        if isinstance(result, FileResult):
            yield self._decoding.popleft().job, result
        elif self._is_alone:
            job = self._decoding.popleft().job
            yield job, skipped(job, result.reason)
        else:
            logger.debug("a batch is decoded again file by file: %s", result.reason)
            self._suspects.extend(self._decoding)
            self._decoding.clear()


def _decode(batch: Batch, decoder: BatchDecoder, limits: MediaLimits, threads: int) -> Iterator[FileResult]:
    """Decodes the frames of a batch and stores its videos. Raises what the decoder raises, unless it blames the only
    file."""
    requests = [_request(video) for video in batch]
    done = 0
    try:
        for video, frames in zip(batch, decoder.frames_of(requests), strict=False):
            within = _within(Deadline(limits.max_decode_seconds), frames)
            yield finish_job(video.job, video.plan, within, threads=threads)
            done += 1
    except BadInput as error:
        if len(batch) > 1:
            raise
        yield skipped(batch[0].job, str(error))
        return
    if done < len(batch):
        raise RuntimeError(f"decoder {decoder.name!r} returned frames for {done} of {len(batch)} files")


def _prepare_here(
    jobs: Iterable[Job], plan: Callable[[Job], PlannedVideo | FileResult], decoder: BatchDecoder, limits: MediaLimits
) -> Iterator[Outcome]:
    batch: list[Planned] = []
    for job, outcome in run_items(plan, jobs, workers=0, timeout=1):
        if isinstance(outcome, PlannedVideo):
            batch.append(Planned(job, outcome))
            if len(batch) == decoder.batch_size:
                yield from _decode_here(batch, decoder, limits)
                batch = []
        else:
            yield job, skipped(job, outcome.reason) if isinstance(outcome, Lost) else outcome
    if batch:
        yield from _decode_here(batch, decoder, limits)


def _decode_here(batch: Batch, decoder: BatchDecoder, limits: MediaLimits) -> Iterator[Outcome]:
    """A batch in this process. If that fails midway, the rest goes file by file."""
    done = 0
    try:
        for result in _decode(batch, decoder, limits, 0):
            yield batch[done].job, result
            done += 1
    except Exception as error:
        if is_environment_failure(error):
            raise
        logger.debug("decoder %s failed on %d files", decoder.name, len(batch), exc_info=True)
        if len(batch) == 1:
            yield batch[0].job, skipped(batch[0].job, f"internal error: {type(error).__name__}: {error}")
            return
    for video in batch[done:]:
        yield from _decode_here([video], decoder, limits)


def _request(video: Planned) -> FrameRequest:
    if video.plan.request is None:
        raise ValueError(f"{video.job.source.video_id} was planned without a request")
    return video.plan.request


def _within(deadline: Deadline, frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    for frame in frames:
        deadline.check()
        yield frame
