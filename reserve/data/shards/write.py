"""Writes a shard: the tar, its index, and last its record."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from reserve.data.shards.index import IndexBuilder
from reserve.data.shards.layout import (
    END,
    MAX_SEGMENT,
    PICTURE,
    SOUND_SUFFIXES,
    TEXT,
    Sound,
    member_header,
    padding,
    sample_key,
    shard_name,
)
from reserve.data.shards.pieces import Piece
from reserve.data.shards.records import FileRecord, ShardRecord, SkippedFile, write_record
from reserve.errors import BadInput
from reserve.fs import replacing, sync_folder


class _HashedFile:
    """A file being written, its size and digest."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)

    def record(self, name: str) -> FileRecord:
        return FileRecord(name, self.size, self._digest.hexdigest())


def write_shard(
    folder: Path, number: int, pieces: Sequence[Piece], skipped: Sequence[SkippedFile], *, sound: Sound
) -> ShardRecord:
    """Writes shard `number` of `pieces`, in their order, and its record with the files `skipped`.

    A sample at a time is in memory. Equal pieces make equal bytes. The tar and the index get their names when both are
    on disk, then the record: a crash leaves an older shard or one whose record does not fit its files. Without pieces
    there is a record only, and older files are removed before it is written. Raises what the pieces raise.
    """
    name = shard_name(number)
    tar, index = folder / f"{name}.tar", folder / f"{name}.index"
    if not pieces:
        record = ShardRecord(number, None, None, (), tuple(skipped))
        # First, since nobody looks for files of a shard whose record names none.
        for path in (tar, index):
            path.unlink(missing_ok=True)
        write_record(folder, record)
        return record
    builder = IndexBuilder(sound)
    with replacing(tar) as new_tar, replacing(index) as new_index:
        with new_tar.open("wb") as file:
            written = _HashedFile(file)
            for piece in pieces:
                _write_video(written, builder, piece, sound)
            written.write(END)
        data = builder.data()
        new_index.write_bytes(data)
    sync_folder(folder)
    record = ShardRecord(
        number,
        written.record(tar.name),
        FileRecord(index.name, len(data), hashlib.sha256(data).hexdigest()),
        tuple(piece.record for piece in pieces),
        tuple(skipped),
    )
    write_record(folder, record)
    return record


def _write_video(file: _HashedFile, builder: IndexBuilder, piece: Piece, sound: Sound) -> None:
    record = piece.record
    if not 1 <= record.segments <= MAX_SEGMENT:
        raise BadInput(f"{record.video_id} has {record.segments} segments; a shard takes 1 to {MAX_SEGMENT} of a video")
    suffixes = (PICTURE, SOUND_SUFFIXES[sound], TEXT)
    count = 0
    for sample in piece.samples(sound):
        key = sample_key(record.video_id, count)
        crc = 0
        for suffix, data in zip(suffixes, sample, strict=True):
            for part in (member_header(f"{key}.{suffix}", len(data)), data, bytes(padding(len(data)))):
                file.write(part)
                crc = zlib.crc32(part, crc)
        words = " ".join(word[0] for word in json.loads(sample.text)["words"])
        builder.add((len(sample.picture), len(sample.sound), len(sample.text)), crc, words)
        count += 1
    if count != record.segments:
        raise BadInput(f"{record.video_id} has {count} segments, not the {record.segments} of its record")
    builder.end_video(record.video_id)
