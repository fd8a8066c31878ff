"""Builds one shard: keeps what is unchanged from its older state, and says which videos are left to prepare."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from reserve.data.prepare.shards.locks import try_lock
from reserve.data.prepare.shards.outcomes import Outcome, skipped_duplicate
from reserve.data.prepare.shards.plan import ShardPlan, remove_folder, video_id
from reserve.data.prepare.shards.sources import StoredVideo
from reserve.data.shards.files import LocalFiles
from reserve.data.shards.layout import MANIFEST, shard_name
from reserve.data.shards.pieces import Piece, ShardPiece, StorePiece
from reserve.data.shards.read import Shard
from reserve.data.shards.records import FileRecord, ShardRecord, SkippedFile, VideoRecord, read_record
from reserve.data.shards.write import write_shard
from reserve.errors import BadInput

logger = logging.getLogger(__name__)
_HASHED_AT_ONCE = 2**20


class Busy(Exception):
    """Another process works on the shard."""


class ShardBuild:
    """A shard that this process has locked. `pending` are the videos to prepare; pass the outcome of each to `add`."""

    def __init__(self, plan: ShardPlan, number: int, duplicates: Mapping[str, str] | None = None) -> None:
        """Locks shard `number`. `duplicates` maps videos to leave out to the ones that they copy; None keeps earlier
        decisions. Raises Busy if another process holds the lock."""
        lock = try_lock(plan.lock(number))
        if lock is None:
            raise Busy
        self.number, self._plan, self._lock, self._duplicates = number, plan, lock, duplicates
        self._folder = plan.folder(number)
        try:
            self._folder.mkdir(exist_ok=True)
            # Left by killed processes: with the lock held, nobody else writes these.
            for folder, pattern in ((self._folder, ".*.partial"), (plan.out, f".{shard_name(number)}.*.partial")):
                for path in folder.glob(pattern):
                    path.unlink(missing_ok=True)
            self._current = current_record(plan.out, number)
            self._old = self._current or _read(self._set_aside)
            self._intact = self._old is not None and _is_intact(plan.out, self._old)
            items = plan.items(number)
            self._items = {video_id(item): item for item in items}
            self._outcomes: dict[str, Outcome] = {}
            self._places: dict[str, int] = {}
            self._keep_old()
            self.pending = [item for item in items if video_id(item) not in self._outcomes]
            self._left = {video_id(item) for item in self.pending}
        except BaseException:
            lock.release()
            raise

    @property
    def kept(self) -> int:
        """Videos of the shard that need no preparation."""
        return len(self._items) - len(self.pending)

    @property
    def is_complete(self) -> bool:
        return not self._left

    def add(self, outcome: Outcome) -> None:
        self._left.remove(outcome.video_id)
        self._outcomes[outcome.video_id] = outcome

    def write(self) -> ShardRecord:
        """Writes the shard, removes its stores and unlocks it. Writes nothing if the shard is up to date."""
        outcomes = [self._outcomes[name] for name in sorted(self._outcomes)]
        if self._duplicates is not None:
            outcomes = [_without_duplicate(outcome, self._duplicates) for outcome in outcomes]
        videos = tuple(outcome for outcome in outcomes if isinstance(outcome, VideoRecord))
        skipped = tuple(outcome for outcome in outcomes if isinstance(outcome, SkippedFile))
        record = self._current
        if record is None or not self._intact or (record.videos, record.skipped) != (videos, skipped):
            (self._plan.out / MANIFEST).unlink(missing_ok=True)
            if self._current is not None:
                # Without a record the shard does not look finished if this process is killed from here on.
                (self._plan.out / self._set_aside.name).replace(self._set_aside)
            pieces = [self._piece(video) for video in videos]
            record = write_shard(self._plan.out, self.number, pieces, skipped, sound=self._plan.sound)
        remove_folder(self._folder)
        self.release()
        return record

    def release(self) -> None:
        """Unlocks the shard. What is prepared is kept."""
        if self._lock.is_locked:
            self._lock.release()

    @property
    def _set_aside(self) -> Path:
        """Where the old record is kept while the shard is rewritten."""
        return self._folder / f"{shard_name(self.number)}.json"

    @cached_property
    def _old_shard(self) -> Shard:
        return Shard(LocalFiles(self._plan.out), self.number, self._plan.preparation.data)

    def _keep_old(self) -> None:
        """Keeps the outcome of every unchanged video."""
        if self._old is None:
            return
        for place, video in enumerate(self._old.videos):
            if self._intact and self._is_unchanged(video):
                self._outcomes[video.video_id] = video
                self._places[video.video_id] = place
        for skipped in self._old.skipped:
            if self._is_unchanged(skipped) and not self._is_retried(skipped):
                self._outcomes[skipped.video_id] = skipped

    def _is_unchanged(self, outcome: Outcome) -> bool:
        item = self._items.get(outcome.video_id)
        return item is not None and item.key == outcome.key

    def _is_retried(self, skipped: SkippedFile) -> bool:
        if skipped.filter == "duplicates":
            return self._duplicates is not None and skipped.video_id not in self._duplicates
        return self._plan.retry_skipped and not skipped.filter

    def _piece(self, video: VideoRecord) -> Piece:
        place = self._places.get(video.video_id)
        if place is not None:
            return ShardPiece(video, self._old_shard, place)
        item = self._items[video.video_id]
        return StorePiece(video, item.path if isinstance(item, StoredVideo) else item.store)


def current_record(out: Path, number: int) -> ShardRecord | None:
    """The record of a shard; None if there is none that can be read."""
    return _read(out / f"{shard_name(number)}.json")


def is_finished(plan: ShardPlan, number: int, record: ShardRecord | None) -> bool:
    """Whether a shard holds exactly the plan's videos of it, as they are now, and its files are there."""
    if record is None or not all(_has_size(plan.out, file) for file in (record.tar, record.index)):
        return False
    outcomes: list[Outcome] = [*record.videos, *record.skipped]
    known = {outcome.video_id: outcome.key for outcome in outcomes}
    return known == {video_id(item): item.key for item in plan.items(number)}


def is_done(plan: ShardPlan, number: int) -> bool:
    """Whether there is nothing to do for a shard: it is finished, and no skipped file of it is to be tried again."""
    record = current_record(plan.out, number)
    if record is None or not is_finished(plan, number, record):
        return False
    return not (plan.retry_skipped and any(not skipped.filter for skipped in record.skipped))


def _without_duplicate(outcome: Outcome, duplicates: Mapping[str, str]) -> Outcome:
    original = duplicates.get(outcome.video_id)
    return outcome if original is None else skipped_duplicate(outcome, original)


def _read(path: Path) -> ShardRecord | None:
    try:
        return read_record(path.read_bytes(), path.name)
    except FileNotFoundError:
        return None
    except BadInput as error:
        logger.warning("%s: its shard is rebuilt: %s", path, error)
        return None


def _has_size(folder: Path, file: FileRecord | None) -> bool:
    try:
        return file is None or (folder / file.name).stat().st_size == file.bytes
    except FileNotFoundError:
        return False


def _is_intact(folder: Path, record: ShardRecord) -> bool:
    """Whether a shard's files have the contents that its record names."""
    return all(
        file is None or (_has_size(folder, file) and _digest(folder / file.name) == file.sha256)
        for file in (record.tar, record.index)
    )


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_HASHED_AT_ONCE):
            digest.update(part)
    return digest.hexdigest()
