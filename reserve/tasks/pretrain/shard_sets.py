"""Sets of shards as pretraining data: whether they fit the model, and whether held-out videos were trained on."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reserve.config import DataConfig, TrainConfig
from reserve.data.collection import PartSet
from reserve.data.shards.files import is_url, open_files
from reserve.data.shards.layout import shard_of
from reserve.data.shards.read import ShardSet, read_file
from reserve.data.shards.records import ShardEntry, VideoRecord, read_record
from reserve.data.sources.discover import discover_sources
from reserve.errors import BadInput

STORED_SETTINGS = ("sample_rate", "fft_window_size", "fft_hop_length", "num_mels", "spec_size")
"""Settings of the section data that decide what a stored segment is."""
MOST_RECORDS = 256
"""Records of shards that are read to compare the videos of two sets; those of larger sets are not all compared."""


def absolute_place(where: str) -> str:
    """A folder's absolute path; a URL as it is."""
    return where if is_url(where) else os.path.abspath(where)


def check_weights(shards: Sequence[str], weights: Sequence[float]) -> None:
    """Raises ValueError unless there are no weights or one for each set, above 0."""
    if weights and len(weights) != len(shards):
        raise ValueError(f"shard_weights must be one a set of shards; got {len(weights)} for {len(shards)}")
    for weight in weights:
        if not 0 < weight < math.inf:
            raise ValueError(f"shard_weights must be above 0 and finite; got {weight:g}")


def open_sets(shards: Sequence[str], data: DataConfig, config: TrainConfig) -> list[ShardSet]:
    """The sets at some places.

    Raises BadInput naming one that is not finished or is there twice, ValueError naming the setting by which its
    segments are not those of `data`.
    """
    opened: dict[str, str] = {}
    sets = []
    for where in shards:
        files = open_files(where, config.shard_cache, round(config.shard_cache_gb * 1e9))
        found = ShardSet.open(files)
        for name in STORED_SETTINGS:
            if getattr(found.data, name) != getattr(data, name):
                raise ValueError(
                    f"{where} was prepared with data.{name} {getattr(found.data, name)}; this run has "
                    f"{getattr(data, name)}"
                )
        if found.manifest.digest in opened:
            raise BadInput(f"{where} is the same set of shards as {opened[found.manifest.digest]}")
        opened[found.manifest.digest] = where
        sets.append(found)
    return sets


def part_sets(
    shards: Sequence[str],
    weights: Sequence[float],
    data: DataConfig,
    config: TrainConfig,
    *,
    spectrograms: bool = True,
) -> list[PartSet]:
    """Sets of shards to plan examples from. Raises as open_sets. `spectrograms` is as in `Shard`."""
    each_weight: Sequence[float | None] = weights or [None] * len(shards)
    return [
        PartSet(
            where,
            [replace(part, spectrograms=spectrograms) for part in each.parts],
            each.manifest.videos,
            weight,
            each.manifest.digest,
        )
        for where, each, weight in zip(shards, open_sets(shards, data, config), each_weight, strict=True)
    ]


@dataclass(frozen=True)
class KnownVideo:
    """A video by its id, the file that it was prepared from, and the key of its preparation if that is known."""

    video_id: str
    file: str
    key: str = ""


def videos_in(sources: Sequence[str | Path]) -> Iterator[KnownVideo]:
    """The videos in files and folders. Raises BadInput if there are none."""
    for source in discover_sources(sources):
        yield KnownVideo(source.video_id, str(source.path))


def videos_of(sets: Iterable[ShardSet]) -> Iterator[KnownVideo]:
    """The videos of sets of shards, of at most MOST_RECORDS shards a set."""
    for each in sets:
        for entry in [entry for entry in each.manifest.shards if entry.segments][:MOST_RECORDS]:
            yield from (KnownVideo(video.video_id, video.file, video.key) for video in _videos(each, entry))


def videos_among(held_out: Iterable[KnownVideo], trained_on: Iterable[KnownVideo]) -> list[KnownVideo]:
    """Which of some videos were made from the same files as others."""
    files = {os.path.realpath(video.file) for video in trained_on}
    return [video for video in held_out if os.path.realpath(video.file) in files]


def videos_among_shards(held_out: Sequence[KnownVideo], trained_on: Iterable[ShardSet]) -> list[KnownVideo]:
    """Which of some videos sets of shards have too, from the same file or in the same state.

    A video's id decides its shard, so few records need be read; at most MOST_RECORDS of a set.
    """
    shared: dict[str, KnownVideo] = {}
    for each in trained_on:
        by_shard: dict[int, list[KnownVideo]] = {}
        for video in held_out:
            by_shard.setdefault(shard_of(video.video_id, len(each.manifest.shards)), []).append(video)
        for number in sorted(by_shard)[:MOST_RECORDS]:
            records = {video.video_id: video for video in _videos(each, each.manifest.shards[number])}
            for video in by_shard[number]:
                record = records.get(video.video_id)
                same = record and (os.path.realpath(record.file) == os.path.realpath(video.file))
                if record and (same or record.key == video.key):
                    shared[video.video_id] = video
    return list(shared.values())


def _videos(each: ShardSet, entry: ShardEntry) -> Sequence[VideoRecord]:
    name = entry.record.name
    return read_record(read_file(each.files, name), name).videos
