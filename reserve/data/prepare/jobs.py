"""The preparation of one file as a unit of work: its store file, and the key that tells whether that is up to date."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from reserve.data.decode.protocol import BatchDecoder, FileDecoder
from reserve.data.prepare.results import FileResult
from reserve.data.prepare.video import (
    PlannedVideo,
    PreparationSettings,
    PreparedVideo,
    assemble_video,
    plan_video,
    prepare_video,
)
from reserve.data.sources.discover import VideoSource
from reserve.data.store import FORMAT, SUFFIX, read_summary, save_segments
from reserve.data.types import DecodedBy
from reserve.errors import BadInput, EnvironmentFailure

logger = logging.getLogger(__name__)

_VERSION = 2  # Of what preparation computes. A higher one makes every store stale.


@dataclass(frozen=True, slots=True)
class Job:
    """A video to prepare into the file `store`; `key` identifies what the store is made from. `decoder` is "auto" or
    the name that was asked for."""

    source: VideoSource
    store: Path
    key: str
    decoder: str = "auto"


def make_job(source: VideoSource, out_dir: Path, settings: PreparationSettings, decoder: str = "auto") -> Job:
    """The job of preparing `source` into `out_dir`."""
    return Job(source, out_dir / store_name(source.video_id), store_key(source, settings), decoder)


def store_name(video_id: str) -> str:
    """File name for a video's segments: readable, and different for different ids."""
    digest = hashlib.sha256(video_id.encode("utf-8", errors="surrogateescape")).hexdigest()[:12]
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', video_id)[-80:].lstrip('.')}-{digest}{SUFFIX}"


def store_key(source: VideoSource, settings: PreparationSettings) -> str:
    """Digest of everything that decides the content of the store file but the decoder, which the store names."""
    files = [source.path, *source.transcripts, *([source.info] if source.info else [])]
    decides = asdict(settings)
    if not decides["keep_sound"]:  # so that the stores of releases without it stay valid
        del decides["keep_sound"]
    described = [FORMAT, _VERSION, source.video_id, decides, [_identity(path) for path in files]]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def _identity(path: Path) -> list[str | int]:
    try:
        status = path.stat()
    except OSError:
        return [path.name, -1, -1]
    return [path.name, status.st_size, status.st_mtime_ns]


def unchanged(job: Job) -> FileResult | None:
    """The result of an earlier run if its store file exists, is readable and not stale."""
    if not job.store.exists():
        return None
    try:
        summary = read_summary(job.store)
    except BadInput as error:
        logger.warning("%s is prepared again: %s", job.source.video_id, error)
        return None
    made = summary.decoded_by
    if summary.key != job.key or job.decoder not in ("auto", made.decoder, made.asked):
        return None
    return FileResult(
        video_id=job.source.video_id,
        path=job.source.path,
        status="unchanged",
        segments=summary.num_segments,
        words=summary.num_words,
        seconds=summary.seconds,
        choice=summary.choice,
        warnings=summary.warnings,
        store=job.store,
        decoder=made.decoder,
        decoder_reason=made.reason,
    )


def skipped(job: Job, reason: str) -> FileResult:
    """The result of a file that cannot be used. Removes the store of an earlier state of the file.

    Raises EnvironmentFailure as check_folder does.
    """
    check_folder(job.source.path)
    job.store.unlink(missing_ok=True)
    return FileResult(job.source.video_id, job.source.path, "skipped", reason=reason)


def check_folder(path: Path) -> None:
    """Raises EnvironmentFailure if the folder of a file that cannot be used is gone, or empty as the folder of a lost
    mount is: then the file is not at fault."""
    folder = path.parent
    if not folder.exists():
        raise EnvironmentFailure(f"{folder} is gone")
    if not path.exists() and not any(folder.iterdir()):
        raise EnvironmentFailure(f"{folder} is empty now")


def run_job(job: Job, settings: PreparationSettings, *decoders: FileDecoder) -> FileResult:
    """Prepares and stores a video with the first of `decoders` that is for it."""
    try:
        return _stored(job, prepare_video(job.source, settings, *decoders))
    except BadInput as error:
        return skipped(job, str(error))


def plan_job(
    job: Job, settings: PreparationSettings, decoders: Sequence[FileDecoder], frames_by: BatchDecoder
) -> PlannedVideo | FileResult:
    """Everything of run_job before the frames, which `frames_by` will decode; all of it for a file that is unsuited."""
    try:
        plan = plan_video(job.source, settings, decoders, frames_by)
        return plan if isinstance(plan, PlannedVideo) else _stored(job, plan)
    except BadInput as error:
        return skipped(job, str(error))


def finish_job(job: Job, plan: PlannedVideo, frames: Iterable[np.ndarray], *, threads: int = 0) -> FileResult:
    """Everything of run_job from the frames on. Frames that raise BadInput skip the video. `threads` as in
    `stored_frames`."""
    try:
        return _stored(job, assemble_video(plan, frames, threads=threads))
    except BadInput as error:
        return skipped(job, str(error))


def _stored(job: Job, prepared: PreparedVideo) -> FileResult:
    warnings = prepared.warnings
    if job.decoder not in ("auto", prepared.decoder):
        warnings = (*warnings, f"its frames come from {prepared.decoder}: {prepared.reason}")
    try:
        save_segments(
            prepared.segments,
            job.store,
            key=job.key,
            warnings=warnings,
            choice=prepared.choice,
            seconds=prepared.seconds,
            decoded_by=DecodedBy(prepared.decoder, prepared.reason, job.decoder),
        )
    except OSError as error:
        raise EnvironmentFailure(f"{job.store} cannot be written: {error.strerror or error}") from error
    return FileResult(
        video_id=job.source.video_id,
        path=job.source.path,
        status="prepared",
        segments=len(prepared.segments),
        words=sum(map(len, prepared.segments.words)),
        seconds=prepared.seconds,
        choice=prepared.choice,
        warnings=warnings,
        store=job.store,
        decoder=prepared.decoder,
        decoder_reason=prepared.reason,
    )
