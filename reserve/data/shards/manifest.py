"""The manifest of a set, made of the records of its shards."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

from reserve.data.shards.layout import SETTINGS, shard_name
from reserve.data.shards.records import (
    FileRecord,
    Manifest,
    ShardEntry,
    ShardRecord,
    SkippedFile,
    read_record,
    read_settings,
    write_manifest,
)
from reserve.errors import BadInput

UNUSABLE = "unusable"
"""How files are counted that no filter refused."""


def finish_set(folder: Path) -> Manifest:
    """Writes the manifest of a folder that holds all its shards, and returns it. Raises BadInput as make_manifest."""
    manifest = make_manifest(folder)
    write_manifest(folder, manifest)
    return manifest


def make_manifest(folder: Path) -> Manifest:
    """The manifest of a folder that holds all its shards, without its digest. One record at a time is in memory.

    Raises BadInput if a record is not there or damaged.
    """
    settings_bytes = _read(folder / SETTINGS)
    settings = read_settings(settings_bytes)
    entries: list[ShardEntry] = []
    skipped: Counter[str] = Counter()
    for number in range(settings.num_shards):
        name = f"{shard_name(number)}.json"
        data = _read(folder / name)
        record = read_record(data, name)
        entries.append(shard_entry(record, file_record(name, data)))
        skipped.update(counted_as(file) for file in record.skipped)
    files = [file for entry in entries for file in (entry.tar, entry.index) if file]
    return Manifest(
        settings=file_record(SETTINGS, settings_bytes),
        videos=sum(entry.videos for entry in entries),
        segments=sum(entry.segments for entry in entries),
        words=sum(entry.words for entry in entries),
        seconds=sum(entry.seconds for entry in entries),
        bytes=sum(file.bytes for file in files),
        skipped=dict(sorted(skipped.items())),
        shards=tuple(entries),
    )


def counted_as(file: SkippedFile) -> str:
    """The name under which a skipped file is counted."""
    return file.filter or UNUSABLE


def shard_entry(record: ShardRecord, file: FileRecord) -> ShardEntry:
    """What the manifest says of a shard with a `record` in `file`."""
    return ShardEntry(
        number=record.number,
        videos=len(record.videos),
        segments=record.num_segments,
        words=sum(video.words for video in record.videos),
        seconds=sum(video.seconds for video in record.videos),
        skipped=len(record.skipped),
        record=file,
        tar=record.tar,
        index=record.index,
    )


def file_record(name: str, data: bytes) -> FileRecord:
    """A small file of a set from its bytes."""
    return FileRecord(name, len(data), hashlib.sha256(data).hexdigest())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BadInput(f"{path.name} is not there") from error
