"""Prepares videos with a decoder that takes the frames of several files at once, such as one on a GPU.

Worker processes do everything before the frames. This process decodes the frames of each full batch and stores the
videos. Frames are not shared between processes, and the GPU belongs to one process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from reserve.data.decode.protocol import BatchDecoder, Deadline, FrameRequest, MediaLimits
from reserve.data.prepare.jobs import Job, finish_job, skipped
from reserve.data.prepare.results import FileResult
from reserve.data.prepare.video import PlannedVideo
from reserve.data.prepare.workers import Lost, run_items
from reserve.errors import BadInput
from reserve.fs import is_environment_failure

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Planned:
    job: Job
    plan: PlannedVideo


def prepare_in_batches(
    jobs: Iterable[Job],
    plan: Callable[[Job], PlannedVideo | FileResult],
    decoder: BatchDecoder,
    limits: MediaLimits,
    *,
    workers: int,
    timeout: float,
) -> Iterator[tuple[Job, FileResult]]:
    """Yields every job with its result as it finishes; takes a job when a worker is free for it.

    `plan` does everything before the frames, in `workers` processes of which each has `timeout` seconds per file; a
    result that it returns is final. `decoder` gives the frames. A file whose frames raise BadInput is skipped alone.
    """
    batch: list[_Planned] = []
    for job, outcome in run_items(plan, jobs, workers=workers, timeout=timeout):
        if isinstance(outcome, PlannedVideo):
            batch.append(_Planned(job, outcome))
            if len(batch) == decoder.batch_size:
                yield from _finish(batch, decoder, limits)
                batch = []
        else:
            yield job, skipped(job, outcome.reason) if isinstance(outcome, Lost) else outcome
    if batch:
        yield from _finish(batch, decoder, limits)


def _finish(batch: Sequence[_Planned], decoder: BatchDecoder, limits: MediaLimits) -> Iterator[tuple[Job, FileResult]]:
    """Decodes the frames of a batch and stores its videos. If that fails midway, the rest goes file by file."""
    requests = [FrameRequest(video.job.source.path, video.plan.frame_times, limits) for video in batch]
    done = 0
    try:
        for video, frames in zip(batch, decoder.frames_of(requests), strict=False):
            result = finish_job(video.job, video.plan, _within(Deadline(limits.max_decode_seconds), frames))
            done += 1
            yield video.job, result
        if done < len(batch):
            raise RuntimeError(f"decoder {decoder.name!r} returned frames for {done} of {len(batch)} files")
    except Exception as error:
        if is_environment_failure(error):
            raise
        logger.debug("decoder %s failed on %d files", decoder.name, len(batch), exc_info=True)
        if len(batch) == 1:
            at_fault = isinstance(error, BadInput)
            reason = str(error) if at_fault else f"internal error: {type(error).__name__}: {error}"
            yield batch[0].job, skipped(batch[0].job, reason)
            return
    for video in batch[done:]:
        yield from _finish([video], decoder, limits)


def _within(deadline: Deadline, frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    for frame in frames:
        deadline.check()
        yield frame
