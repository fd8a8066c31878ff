"""Prepares many videos, each into one store file. A video that cannot be used is skipped with its reason."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from reserve.config import DataConfig
from reserve.data.decode import candidates
from reserve.data.decode.protocol import MediaLimits
from reserve.data.prepare.jobs import Job, make_job, unchanged
from reserve.data.prepare.results import FileResult, PreparationReport
from reserve.data.prepare.running import run_jobs
from reserve.data.prepare.video import PreparationSettings
from reserve.data.sources.discover import VideoSource
from reserve.errors import EnvironmentFailure, NothingPrepared
from reserve.fs import remove_partial_files

logger = logging.getLogger(__name__)


def prepare_videos(
    sources: Sequence[VideoSource],
    out_dir: str | Path,
    config: DataConfig,
    *,
    workers: int = 1,
    seed: int = 0,
    audio_track: int | None = None,
    limits: MediaLimits | None = None,
    decoder: str = "auto",
    on_result: Callable[[FileResult], None] | None = None,
) -> PreparationReport:
    """Prepares `sources` into `out_dir`, one store file each, in `workers` processes (0: in this one).

    Keeps a store that was made from the same files with the same settings. Skips a video that cannot be used, kills its
    process or takes longer than `limits.max_decode_seconds`. Calls `on_result` with every result as it comes.

    Args:
        decoder: "auto", or the name of one of `reserve.data.decode.DECODERS`. A file that this one is not for goes to
            the next, and its result says so. A named one makes the stores of any other stale.

    Raises:
        NothingPrepared: every file was skipped.
        EnvironmentFailure: the machine failed, not a file: the disk is full, for example. What is prepared is kept.
        ValueError: there is no decoder of that name.
        RuntimeError: the decoder cannot run, or worker processes do not start.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    settings = PreparationSettings(config, seed, audio_track, limits or MediaLimits())
    decoders = candidates(decoder)
    jobs = [make_job(source, out_dir, settings, decoder) for source in sources]
    results: dict[str, FileResult] = {}

    def finish(result: FileResult) -> None:
        results[result.video_id] = result
        _log(result)
        if on_result is not None:
            on_result(result)

    for job in jobs:
        if (kept := unchanged(job)) is not None:
            finish(kept)
    pending = [job for job in jobs if job.source.video_id not in results]
    try:
        for _, result in run_jobs(pending, settings, decoders, _itself, workers=workers):
            finish(result)
    except (EnvironmentFailure, OSError) as error:
        raise EnvironmentFailure(
            f"preparation stopped after {len(results)} of {len(jobs)} videos: {error}. What is prepared is kept: mend "
            "this and run the command again"
        ) from error
    finally:
        remove_partial_files(out_dir)  # Of worker processes that were killed.
    report = PreparationReport(tuple(results[source.video_id] for source in sources))
    logger.info("%s", report.summary())
    if not report.stores:
        raise NothingPrepared(report)
    return report


def _itself(_: Job, result: FileResult) -> FileResult:
    return result


def _log(result: FileResult) -> None:
    if result.status == "skipped":
        logger.warning("skipped %s: %s", result.video_id, result.reason)
    else:
        logger.info("%s %s: %d segments, %d words", result.status, result.video_id, result.segments, result.words)
    for warning in result.warnings:
        logger.warning("%s: %s", result.video_id, warning)
