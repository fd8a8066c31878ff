"""The videos that a shard is written from: store files, and videos of an older shard."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from reserve.data.shards.layout import Sample, Sound
from reserve.data.shards.read import Shard
from reserve.data.shards.records import VideoRecord
from reserve.data.store import load_segments, read_summary
from reserve.data.types import Segments
from reserve.errors import BadInput

_SEGMENTS_AT_ONCE = 64


class Piece(Protocol):
    """A video for a shard."""

    @property
    def record(self) -> VideoRecord: ...

    def samples(self, sound: Sound) -> Iterator[Sample]:
        """Its segments in order. Raises BadInput where one is damaged or its sound is of another kind."""
        ...


@dataclass(frozen=True, slots=True)
class StorePiece:
    """A video in a store file, of which a few segments at a time are in memory."""

    record: VideoRecord
    store: Path

    def samples(self, sound: Sound) -> Iterator[Sample]:
        total = self.record.segments
        if (found := read_summary(self.store).num_segments) != total:
            raise BadInput(f"{self.store} has {found} segments, not the {total} of its record")
        for first in range(0, total, _SEGMENTS_AT_ONCE):
            part = load_segments(self.store, first, min(first + _SEGMENTS_AT_ONCE, total))
            if sound == "flac" and len(part.sound) != len(part):
                raise BadInput(f"{self.store}: it was prepared without the sound itself")
            for place in range(len(part)):
                yield _sample(self.record, part, place, first + place, sound)


@dataclass(frozen=True, slots=True)
class ShardPiece:
    """Video number `video` of a shard."""

    record: VideoRecord
    shard: Shard
    video: int

    def samples(self, sound: Sound) -> Iterator[Sample]:
        if self.shard.sound != sound:
            raise BadInput(f"{self.shard.name} holds sound as {self.shard.sound}, not as {sound}")
        for segment in range(self.record.segments):
            yield self.shard.sample(self.video, segment)


def _sample(record: VideoRecord, part: Segments, place: int, segment: int, sound: Sound) -> Sample:
    text = {
        "video_id": record.video_id,  # Stores of two runs may have the same.
        "segment": segment,
        "segments": record.segments,
        "start": float(part.start[place]),
        "playback_speed": int(part.playback_speed[place]),
        "words": [[word.text, word.start, word.end] for word in part.words[place]],
        "metadata": asdict(part.metadata),
    }
    heard = part.sound[place] if sound == "flac" else _npy(part.log_mel[place])
    return Sample(part.frames[place], heard, json.dumps(text, separators=(",", ":")).encode("ascii"))


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return file.getvalue()
