"""The last step of a set: duplicates over all shards, and the manifest."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress

from reserve.data.filters import find_duplicates
from reserve.data.prepare.shards.build import current_record, is_finished
from reserve.data.prepare.shards.engines.local import build_shards
from reserve.data.prepare.shards.events import ignore
from reserve.data.prepare.shards.locks import POLL_SECONDS, locked, try_lock
from reserve.data.prepare.shards.outcomes import skipped_duplicate
from reserve.data.prepare.shards.plan import ShardPlan, remove_folder
from reserve.data.shards.layout import MANIFEST, shard_name
from reserve.data.shards.manifest import finish_set, make_manifest
from reserve.data.shards.records import (
    Manifest,
    ShardRecord,
    SkippedFile,
    VideoRecord,
    read_manifest,
    read_record,
)
from reserve.errors import BadInput
from reserve.fs import remove_partial_files


def unfinished_shards(plan: ShardPlan) -> list[int]:
    """The shards, of every fold, that do not hold the videos as they are now."""
    return [
        number
        for number in range(plan.settings.num_shards)
        if not is_finished(plan, number, current_record(plan.out, number))
    ]


def finish(plan: ShardPlan, *, workers: int) -> Manifest | None:
    """Leaves out the duplicates, writes the manifest and removes the scratch folder, once every shard is finished.

    Returns None if some shard is not. Only one process does the work; others wait for it.
    """
    if unfinished_shards(plan):
        return None
    if plan.work.exists() or not _is_current(plan):
        with locked(plan.set_lock):
            if not _is_current(plan):
                if not _drop_duplicates(plan, workers):
                    return None
                finish_set(plan.out)
            remove_partial_files(plan.out)
            _remove_work(plan)
    return read_manifest((plan.out / MANIFEST).read_bytes())


def _drop_duplicates(plan: ShardPlan, workers: int) -> bool:
    """Rewrites the shards whose duplicates are not those of the whole set. False if a shard is no longer finished."""
    while not unfinished_shards(plan):
        duplicates: dict[str, str] = {}
        if plan.filters.duplicates:
            duplicates = find_duplicates(
                (video.video_id, video.segments, video.signature)
                for record in _records(plan)
                for video in _with_duplicates(record)
            )
        numbers = [record.number for record in _records(plan) if _is_to_rewrite(record, duplicates)]
        if not numbers:
            return True
        if build_shards(plan, numbers, ignore, workers=workers, duplicates=duplicates):
            time.sleep(POLL_SECONDS)
    return False


def _with_duplicates(record: ShardRecord) -> list[VideoRecord | SkippedFile]:
    return [*record.videos, *_known_duplicates(record)]


def _known_duplicates(record: ShardRecord) -> list[SkippedFile]:
    return [skipped for skipped in record.skipped if skipped.filter == "duplicates"]


def _is_to_rewrite(record: ShardRecord, duplicates: Mapping[str, str]) -> bool:
    """Whether a shard holds a duplicate, or leaves out a video that is none or is one of another video."""
    return any(video.video_id in duplicates for video in record.videos) or any(
        skipped.video_id not in duplicates or skipped != skipped_duplicate(skipped, duplicates[skipped.video_id])
        for skipped in _known_duplicates(record)
    )


def _records(plan: ShardPlan) -> Iterator[ShardRecord]:
    for number in range(plan.settings.num_shards):
        yield read_record((plan.out / f"{shard_name(number)}.json").read_bytes(), f"{shard_name(number)}.json")


def _is_current(plan: ShardPlan) -> bool:
    """Whether the manifest in the folder is that of the shards in it."""
    try:
        return read_manifest((plan.out / MANIFEST).read_bytes()) == make_manifest(plan.out)
    except (BadInput, FileNotFoundError):
        return False


def _remove_work(plan: ShardPlan) -> None:
    """Removes the scratch folder, unless another process has begun to work on a shard."""
    for path in sorted(plan.work.glob("shard-*.lock")):
        lock = try_lock(path)
        if lock is None:
            return
        remove_folder(path.with_suffix(""))
        path.unlink(missing_ok=True)
        lock.release()
    plan.set_lock.unlink(missing_ok=True)
    with suppress(OSError):  # Another process has just made a lock in it.
        plan.work.rmdir()
