"""Runs preparation jobs with any decoder: in supervised processes, or with the frames of batches in this one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from reserve.data.decode.choice import Candidates
from reserve.data.decode.protocol import BatchDecoder, FileDecoder
from reserve.data.prepare.batches import prepare_in_batches
from reserve.data.prepare.jobs import Job, plan_job, run_job, skipped, unchanged
from reserve.data.prepare.results import FileResult
from reserve.data.prepare.video import PlannedVideo, PreparationSettings
from reserve.data.prepare.workers import Lost, run_items

Result = TypeVar("Result")
# A decoder checks its own time limit. A process that exceeds the limit by this many seconds is killed.
GRACE_SECONDS = 60.0


def run_jobs(
    jobs: Iterable[Job],
    settings: PreparationSettings,
    decoders: Candidates,
    finish: Callable[[Job, FileResult], Result],
    *,
    workers: int,
    keep: bool = False,
) -> Iterator[tuple[Job, Result]]:
    """Yields every job as it finishes, with what `finish` makes of its result.

    Takes a job when one of the `workers` processes (0: this process) is free for it. `keep` reuses the stores that are
    not stale. `finish` runs in the workers where these decode the frames; it must be picklable. Each file goes to the
    first of `decoders` that is for it: if that takes batches, the files that it is not for are decoded in the workers.
    """
    timeout = settings.limits.max_decode_seconds + GRACE_SECONDS
    first = decoders.decoders[0]
    if isinstance(first, BatchDecoder):
        plan = partial(_plan, settings=settings, decoders=decoders.files, frames_by=first, keep=keep)
        batches = prepare_in_batches(jobs, plan, first, settings.limits, workers=workers, timeout=timeout)
        for job, result in batches:
            yield job, finish(job, result)
        return
    function = partial(_run, settings=settings, decoders=decoders.files, finish=finish, keep=keep)
    for job, outcome in run_items(function, jobs, workers=workers, timeout=timeout):
        yield job, finish(job, skipped(job, outcome.reason)) if isinstance(outcome, Lost) else outcome


def _plan(
    job: Job, settings: PreparationSettings, decoders: Sequence[FileDecoder], frames_by: BatchDecoder, keep: bool
) -> PlannedVideo | FileResult:
    return (unchanged(job) if keep else None) or plan_job(job, settings, decoders, frames_by)


def _run(
    job: Job,
    settings: PreparationSettings,
    decoders: Sequence[FileDecoder],
    finish: Callable[[Job, FileResult], Result],
    keep: bool,
) -> Result:
    return finish(job, (unchanged(job) if keep else None) or run_job(job, settings, *decoders))
