"""What becomes of a video: a record of it, or the reason why it is left out."""

from __future__ import annotations

import re
from pathlib import Path

from reserve.config import SEGMENT_SECONDS, DataConfig, FilterConfig
from reserve.data.filters import screen_store
from reserve.data.prepare.jobs import Job, check_folder
from reserve.data.prepare.results import FileResult
from reserve.data.prepare.shards.plan import Item
from reserve.data.prepare.shards.sources import StoredVideo, is_store_of
from reserve.data.shards.records import SkippedFile, VideoRecord
from reserve.data.store import load_segments, read_summary
from reserve.errors import BadInput
from reserve.fs import check_regular_file

Outcome = VideoRecord | SkippedFile


def judge_prepared(job: Job, result: FileResult, filters: FilterConfig) -> Outcome:
    """The outcome of a video that was prepared or skipped."""
    if result.store is None:
        return skipped_file(job, result.reason)
    return _judge(job, result.store, filters)


def judge_stored(video: StoredVideo, data: DataConfig, filters: FilterConfig, keep_sound: bool) -> Outcome:
    """The outcome of a store file of an earlier run."""
    try:
        check_regular_file(video.path)
        if not read_summary(video.path).num_segments:
            raise BadInput("it has no segments")
        first = load_segments(video.path, 0, 1)
        shape, wanted = first.log_mel.shape[1:], (data.spec_size, data.num_mels)
        if shape != wanted:
            raise BadInput(f"its spectrograms are {list(shape)}; data.spec_size and data.num_mels are {list(wanted)}")
        if not is_store_of(video.path, first.video_id):
            raise BadInput(f"it holds another video than its name says: {first.video_id}")
        if keep_sound and not first.sound:
            raise BadInput("it was prepared without the sound itself, which --sound flac needs")
        return _judge(video, video.path, filters)
    except BadInput as error:
        check_folder(video.path)
        return skipped_file(video, str(error).removeprefix(f"{video.path}: ").partition("; delete it")[0])


def skipped_file(item: Item, reason: str) -> SkippedFile:
    """The outcome of a video that cannot be used."""
    video_id, path = _names(item)
    return SkippedFile(video_id, path.name, item.key, reason)


def skipped_duplicate(video: VideoRecord | SkippedFile, original: str) -> SkippedFile:
    """The outcome of a video that is a copy of the video `original`."""
    return SkippedFile(
        video.video_id,
        video.file,
        video.key,
        f"duplicate of {original}",
        filter="duplicates",
        signature=video.signature,
        segments=video.segments,
    )


def category(skipped: SkippedFile) -> str:
    """What skipped files are counted by: the filter, or the reason without its details."""
    if skipped.filter:
        return f"filter {skipped.filter}"
    return re.split(r"[:;(\d]", skipped.reason, maxsplit=1)[0].strip() or skipped.reason


def _judge(item: Item, store: Path, filters: FilterConfig) -> Outcome:
    video_id, path = _names(item)
    summary = read_summary(store)
    screening = screen_store(store, filters)
    if screening.filter:
        return SkippedFile(video_id, path.name, item.key, screening.reason, filter=screening.filter)
    return VideoRecord(
        video_id=video_id,
        file=path.name,
        key=item.key,
        segments=summary.num_segments,
        words=summary.num_words,
        seconds=summary.seconds or _end(store, summary.num_segments),
        transcript=summary.choice.transcript,
        audio=summary.choice.audio,
        warnings=summary.warnings,
        signature=screening.signature,
        decoder=summary.decoded_by.decoder,
        decoder_reason=summary.decoded_by.reason,
    )


def _names(item: Item) -> tuple[str, Path]:
    return (item.video_id, item.path) if isinstance(item, StoredVideo) else (item.source.video_id, item.source.path)


def _end(store: Path, segments: int) -> float:
    """Where the last segment ends: the length of a video whose store does not tell."""
    last = load_segments(store, segments - 1, segments)
    return float(last.start[0]) + SEGMENT_SECONDS * int(last.playback_speed[0])
