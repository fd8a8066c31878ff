"""Prepares many videos: each to one store file, each that cannot be used skipped with its name and reason."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from reserve.config import DataConfig
from reserve.data.decode.pyav import MediaLimits
from reserve.data.prepare.video import PreparationSettings, prepare_video
from reserve.data.prepare.workers import Lost, run_supervised
from reserve.data.sources.discover import VideoSource
from reserve.data.store import FORMAT, SUFFIX, read_summary, save_segments
from reserve.errors import BadInput, NothingPrepared

logger = logging.getLogger(__name__)

_VERSION = 1  # Of what preparation computes: raising it makes every stored video stale.
_GRACE_SECONDS = 60.0  # Beyond the limit that decoding keeps by itself, before its process is ended.


@dataclass(frozen=True, slots=True)
class FileResult:
    """What one file gave. `segments`, `words`, `warnings` and `store` where it was prepared now or is `unchanged` since
    an earlier run; `reason` where it was skipped; `seconds` and `transcript` where it was prepared now."""

    video_id: str
    path: Path
    status: Literal["prepared", "unchanged", "skipped"]
    segments: int = 0
    words: int = 0
    seconds: float = 0.0
    transcript: str = ""
    reason: str = ""
    warnings: tuple[str, ...] = ()
    store: Path | None = None


@dataclass(frozen=True, slots=True)
class PreparationReport:
    """Results of all files, in the order of the sources."""

    results: tuple[FileResult, ...]

    @property
    def stores(self) -> list[Path]:
        """Store files of the usable videos."""
        return [result.store for result in self.results if result.store is not None]

    @property
    def skipped(self) -> list[FileResult]:
        return [result for result in self.results if result.status == "skipped"]

    def summary(self) -> str:
        """One sentence that counts everything."""
        usable = [result for result in self.results if result.status != "skipped"]
        unchanged = sum(result.status == "unchanged" for result in usable)
        return (
            f"{len(self.results)} files: {len(usable)} usable ({unchanged} unchanged) with "
            f"{sum(result.segments for result in usable)} segments and {sum(result.words for result in usable)} words, "
            f"{len(self.skipped)} skipped"
        )


def prepare_videos(
    sources: Sequence[VideoSource],
    out_dir: str | Path,
    config: DataConfig,
    *,
    workers: int = 1,
    seed: int = 0,
    audio_track: int = 0,
    limits: MediaLimits | None = None,
    on_result: Callable[[FileResult], None] | None = None,
) -> PreparationReport:
    """Prepares `sources` into `out_dir`, one store file each, in `workers` processes (0: in this one).

    A file already there, made from the same files with the same settings, is kept. One that cannot be used, kills its
    process, or takes longer than `limits.max_decode_seconds` is skipped with its reason. `on_result` is called with
    every result as it comes. Raises NothingPrepared where every file was skipped.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    settings = PreparationSettings(config, seed, audio_track, limits or MediaLimits())
    jobs = [_Job(source, out_dir / store_name(source.video_id), _key(source, settings)) for source in sources]
    results: dict[int, FileResult] = {}

    def finish(index: int, result: FileResult) -> None:
        results[index] = result
        _log(result)
        if on_result is not None:
            on_result(result)

    for index, job in enumerate(jobs):
        if (kept := _unchanged(job)) is not None:
            finish(index, kept)
    pending = [index for index in range(len(jobs)) if index not in results]
    outcomes = run_supervised(
        partial(_prepare_job, settings=settings),
        [jobs[index] for index in pending],
        workers=workers,
        timeout=settings.limits.max_decode_seconds + _GRACE_SECONDS,
    )
    for place, outcome in outcomes:
        job = jobs[pending[place]]
        finish(pending[place], _skipped(job, outcome.reason) if isinstance(outcome, Lost) else outcome)
    report = PreparationReport(tuple(results[index] for index in range(len(jobs))))
    logger.info("%s", report.summary())
    if not report.stores:
        raise NothingPrepared(report)
    return report


def store_name(video_id: str) -> str:
    """File name for a video's segments: readable, and different for different ids."""
    digest = hashlib.sha256(video_id.encode("utf-8", errors="surrogateescape")).hexdigest()[:12]
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', video_id)[-80:].lstrip('.')}-{digest}{SUFFIX}"


@dataclass(frozen=True, slots=True)
class _Job:
    source: VideoSource
    store: Path
    key: str


def _key(source: VideoSource, settings: PreparationSettings) -> str:
    """Digest of everything that decides what the store file holds."""
    files = [source.path, *source.transcripts, *([source.info] if source.info else [])]
    described = [FORMAT, _VERSION, source.video_id, asdict(settings), [_identity(path) for path in files]]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def _identity(path: Path) -> list[str | int]:
    try:
        status = path.stat()
    except OSError:
        return [path.name, -1, -1]
    return [path.name, status.st_size, status.st_mtime_ns]


def _unchanged(job: _Job) -> FileResult | None:
    """The result of an earlier run, where its store file is there, readable and not stale."""
    if not job.store.exists():
        return None
    try:
        summary = read_summary(job.store)
    except BadInput as error:
        logger.warning("%s is prepared again: %s", job.source.video_id, error)
        return None
    if summary.key != job.key:
        return None
    return FileResult(
        video_id=job.source.video_id,
        path=job.source.path,
        status="unchanged",
        segments=summary.num_segments,
        words=summary.num_words,
        warnings=summary.warnings,
        store=job.store,
    )


def _prepare_job(job: _Job, settings: PreparationSettings) -> FileResult:
    try:
        prepared = prepare_video(job.source, settings)
    except BadInput as error:
        return _skipped(job, str(error))
    save_segments(prepared.segments, job.store, key=job.key, warnings=prepared.warnings)
    return FileResult(
        video_id=job.source.video_id,
        path=job.source.path,
        status="prepared",
        segments=len(prepared.segments),
        words=sum(map(len, prepared.segments.words)),
        seconds=prepared.seconds,
        transcript=prepared.transcript,
        warnings=prepared.warnings,
        store=job.store,
    )


def _skipped(job: _Job, reason: str) -> FileResult:
    # What an earlier state of the file gave must not be taken for what it gives now.
    job.store.unlink(missing_ok=True)
    return FileResult(job.source.video_id, job.source.path, "skipped", reason=reason)


def _log(result: FileResult) -> None:
    if result.status == "skipped":
        logger.warning("skipped %s: %s", result.video_id, result.reason)
    else:
        logger.info("%s %s: %d segments, %d words", result.status, result.video_id, result.segments, result.words)
    for warning in result.warnings:
        logger.warning("%s: %s", result.video_id, warning)
