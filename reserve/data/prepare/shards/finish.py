"""The last step of a set: duplicates over all shards, and the manifest."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from reserve.data.filters import find_duplicates
from reserve.data.prepare.shards.build import current_record, is_finished
from reserve.data.prepare.shards.engines.local import build_shards
from reserve.data.prepare.shards.events import ignore
from reserve.data.prepare.shards.locks import POLL_SECONDS, locked, try_lock
from reserve.data.prepare.shards.outcomes import skipped_duplicate
from reserve.data.prepare.shards.plan import ShardPlan, remove_folder
from reserve.data.shards.layout import MANIFEST, SETTINGS, shard_name
from reserve.data.shards.manifest import finish_set, make_manifest
from reserve.data.shards.records import (
    Manifest,
    ShardRecord,
    SkippedFile,
    VideoRecord,
    read_manifest,
)
from reserve.errors import BadInput

logger = logging.getLogger(__name__)


def unfinished_shards(plan: ShardPlan) -> list[int]:
    """The shards, of every fold, that do not hold the videos as they are now."""
    return [
        number
        for number in range(plan.settings.num_shards)
        if not is_finished(plan, number, current_record(plan.out, number))
    ]


def drop_damaged_records(plan: ShardPlan, numbers: Iterable[int]) -> None:
    """Removes records that do not match the manifest, so that their shards are rebuilt.

    Writers remove the manifest before they replace a record, so a record that differs from a manifest is damaged.
    """
    manifest = _read_manifest(plan)
    for number in numbers if manifest else ():
        if _is_damaged(plan, number, manifest) and (lock := try_lock(plan.lock(number))) is not None:
            if _is_damaged(plan, number, _read_manifest(plan)):
                logger.warning("%s is rebuilt: its record is damaged", shard_name(number))
                (plan.out / f"{shard_name(number)}.json").unlink()
            lock.release()


def _is_damaged(plan: ShardPlan, number: int, manifest: Manifest | None) -> bool:
    path = plan.out / f"{shard_name(number)}.json"
    if manifest is None or number >= len(manifest.shards) or not path.exists():
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest() != manifest.shards[number].record.sha256


def finish(plan: ShardPlan, *, workers: int) -> Manifest | None:
    """Leaves out the duplicates of a set whose shards are all finished, writes the manifest and removes the scratch
    folder. Only one process does the work; others wait for it.

    Returns None if another process has begun to change a shard: it will finish the set.
    """
    manifest = _current_manifest(plan)
    if manifest is None or plan.work.exists():
        with locked(plan.set_lock):
            manifest = _current_manifest(plan) or _finish(plan, workers)
            if manifest is not None:
                _remove_partial_files(plan)
                _remove_work(plan)
    return manifest


def _finish(plan: ShardPlan, workers: int) -> Manifest | None:
    """Rewrites the shards whose duplicates are not those of the whole set, and writes the manifest. None if another
    process has begun to change a shard: it will finish the set."""
    while not unfinished_shards(plan):
        try:
            numbers, duplicates = _to_rewrite(plan)
            if not numbers:
                return finish_set(plan.out)
        except BadInput:
            return None
        if build_shards(plan, numbers, ignore, workers=workers, duplicates=duplicates):
            time.sleep(POLL_SECONDS)
    return None


def _to_rewrite(plan: ShardPlan) -> tuple[list[int], dict[str, str]]:
    """The shards whose duplicates are not those of the whole set, and these."""
    duplicates: dict[str, str] = {}
    if plan.filters.duplicates:
        duplicates = find_duplicates(
            (video.video_id, video.segments, video.signature)
            for record in _records(plan)
            for video in _with_duplicates(record)
        )
    return [record.number for record in _records(plan) if _is_to_rewrite(record, duplicates)], duplicates


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
        record = current_record(plan.out, number)
        if record is None:
            raise BadInput(f"{shard_name(number)} is not finished")
        yield record


def _current_manifest(plan: ShardPlan) -> Manifest | None:
    """The manifest in the folder if it is that of the shards in it."""
    manifest = _read_manifest(plan)
    try:
        return manifest if manifest is not None and manifest == make_manifest(plan.out) else None
    except BadInput:
        return None


def _read_manifest(plan: ShardPlan) -> Manifest | None:
    try:
        return read_manifest((plan.out / MANIFEST).read_bytes())
    except (BadInput, FileNotFoundError):
        return None


def _remove_partial_files(plan: ShardPlan) -> None:
    """Removes what killed processes left of the files that are written with the set locked. Those of shards may be in
    use on another machine: whoever locks the shard next removes them."""
    for name in (SETTINGS, MANIFEST):
        for path in plan.out.glob(f".{name}.*.partial"):
            path.unlink(missing_ok=True)


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
