"""Prepares many videos, each into one store file. A video that cannot be used is skipped with its reason."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from reserve.config import DataConfig
from reserve.data.decode import choose_decoder, choose_file_decoder
from reserve.data.decode.protocol import BatchDecoder, Decoder, FileDecoder, MediaLimits
from reserve.data.prepare.batches import prepare_in_batches
from reserve.data.prepare.jobs import Job, make_job, run_job, skipped, unchanged
from reserve.data.prepare.results import FileResult, PreparationReport
from reserve.data.prepare.video import PreparationSettings
from reserve.data.prepare.workers import Lost, run_supervised
from reserve.data.sources.discover import VideoSource
from reserve.errors import EnvironmentFailure, NothingPrepared
from reserve.fs import remove_partial_files

logger = logging.getLogger(__name__)

# A decoder checks its own time limit. A process that exceeds the limit by this many seconds is killed.
_GRACE_SECONDS = 60.0


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
        decoder: "auto" for the first of `reserve.data.decode.DECODERS` that can run, or the name of one. With one that
            takes batches of files, only the frames are decoded in this process.

    Raises:
        NothingPrepared: every file was skipped.
        EnvironmentFailure: the machine failed, not a file: the disk is full, for example. What is prepared is kept.
        ValueError: there is no decoder of that name.
        RuntimeError: the decoder cannot run, or worker processes do not start.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    settings = PreparationSettings(config, seed, audio_track, limits or MediaLimits())
    chosen = choose_decoder(decoder)
    file_decoder = chosen if isinstance(chosen, FileDecoder) else choose_file_decoder()
    # Both decide what a store holds: pictures come from one, sound and text from the other.
    names = list(dict.fromkeys([chosen.name, file_decoder.name]))
    jobs = [make_job(source, out_dir, settings, names) for source in sources]
    results: dict[int, FileResult] = {}

    def finish(index: int, result: FileResult) -> None:
        results[index] = result
        _log(result)
        if on_result is not None:
            on_result(result)

    for index, job in enumerate(jobs):
        if (kept := unchanged(job)) is not None:
            finish(index, kept)
    pending = [index for index in range(len(jobs)) if index not in results]
    try:
        for place, result in _run([jobs[index] for index in pending], settings, chosen, file_decoder, workers):
            finish(pending[place], result)
    except (EnvironmentFailure, OSError) as error:
        raise EnvironmentFailure(
            f"preparation stopped after {len(results)} of {len(jobs)} videos: {error}. What is prepared is kept: mend "
            "this and run the command again"
        ) from error
    finally:
        remove_partial_files(out_dir)  # Of worker processes that were killed.
    report = PreparationReport(tuple(results[index] for index in range(len(jobs))))
    logger.info("%s", report.summary())
    if not report.stores:
        raise NothingPrepared(report)
    return report


def _run(
    jobs: Sequence[Job], settings: PreparationSettings, decoder: Decoder, file_decoder: FileDecoder, workers: int
) -> Iterator[tuple[int, FileResult]]:
    """Yields (index, result) of every job as it finishes."""
    timeout = settings.limits.max_decode_seconds + _GRACE_SECONDS
    if isinstance(decoder, BatchDecoder):
        yield from prepare_in_batches(jobs, settings, decoder, file_decoder, workers=workers, timeout=timeout)
        return
    function = partial(run_job, settings=settings, decoder=file_decoder)
    for index, outcome in run_supervised(function, jobs, workers=workers, timeout=timeout):
        yield index, skipped(jobs[index], outcome.reason) if isinstance(outcome, Lost) else outcome


def _log(result: FileResult) -> None:
    if result.status == "skipped":
        logger.warning("skipped %s: %s", result.video_id, result.reason)
    else:
        logger.info("%s %s: %d segments, %d words", result.status, result.video_id, result.segments, result.words)
    for warning in result.warnings:
        logger.warning("%s: %s", result.video_id, warning)
