"""What a set of shards is made from: videos, or the store files of an earlier run."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reserve.data.prepare.jobs import store_name
from reserve.data.prepare.record import NAME, recorded_stores
from reserve.data.sources.discover import VideoSource, discover_sources
from reserve.data.store import FORMAT, read_video_id
from reserve.errors import BadInput


@dataclass(frozen=True, slots=True)
class StoredVideo:
    """A video in the store file of an earlier run."""

    video_id: str
    path: Path

    @property
    def key(self) -> str:
        """Identifies the state of the file."""
        try:
            status = self.path.stat()
            described = [FORMAT, self.video_id, self.path.name, status.st_size, status.st_mtime_ns]
        except OSError:
            described = [FORMAT, self.video_id, self.path.name]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()


Source = VideoSource | StoredVideo


def find_sources(paths: Sequence[str | Path], languages: Sequence[str]) -> list[Source]:
    """Every video of `paths` (files, folders searched recursively), or every store file if they are folders of runs.

    Sorted by `video_id`. Raises BadInput if there is none, or if `paths` mix runs with videos.
    """
    runs = [Path(path) for path in paths if is_run(Path(path))]
    if not runs:
        return list(discover_sources(paths, languages=languages))
    if len(runs) < len(paths):
        others = ", ".join(str(path) for path in paths if not is_run(Path(path)))
        raise BadInput(f"{runs[0]} is the folder of a run and {others} is not: prepare them into two sets")
    stores = list(dict.fromkeys(Path(os.path.abspath(store)) for run in runs for store in recorded_stores(run)))
    if not stores:
        raise BadInput(f"no store files are recorded in {', '.join(str(run / NAME) for run in runs)}")
    names = [_stored_id(store) for store in stores]
    counts = Counter(names)
    found = [
        StoredVideo(name if counts[name] == 1 else f"{store.parent.parent}/{name}", store)
        for name, store in zip(names, stores, strict=True)
    ]
    return sorted(found, key=lambda source: source.video_id)


def is_run(path: Path) -> bool:
    """Whether a folder is one that `reserve pretrain --videos` writes: with store files and their record."""
    return (path / NAME).is_file() and (path / "prepared").is_dir()


def _stored_id(store: Path) -> str:
    """The id of a store file's video. A file that is damaged or holds another video has its name as id, and is reported
    when it is prepared."""
    try:
        video_id = read_video_id(store)
    except BadInput:
        return store.name
    return video_id if is_store_of(store, video_id) else store.name


def is_store_of(store: Path, video_id: str) -> bool:
    """Whether a store file has the name that preparation gives to that of a video. It has not if files were swapped."""
    try:
        return store.name == store_name(video_id)
    except UnicodeEncodeError:  # No file has such an id.
        return False
