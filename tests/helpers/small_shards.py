"""Small sets of shards with the videos of small_stores.py, made without decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from reserve.data.decode.protocol import MediaLimits
from reserve.data.segment_sound import clip_length, encode_flac
from reserve.data.shards.layout import Sound
from reserve.data.shards.manifest import finish_set
from reserve.data.shards.pieces import StorePiece
from reserve.data.shards.records import Manifest, Settings, SkippedFile, VideoRecord, write_settings
from reserve.data.shards.write import write_shard
from reserve.data.store import load_segments, read_summary, save_segments
from reserve.data.types import Segments
from tests.helpers.small_stores import DATA, make_stores


def settings(num_shards: int, sound: Sound = "log_mel") -> Settings:
    return Settings(
        num_shards=num_shards,
        videos_per_shard=256,
        sound=sound,
        seed=0,
        audio_track=None,
        decoders=("pyav",),
        data={name: list(each) if isinstance(each, tuple) else each for name, each in asdict(DATA).items()},
        filter={},
        limits=asdict(MediaLimits()),
        versions={},
    )


def store_piece(store: Path) -> StorePiece:
    """A store file as a video of a shard."""
    summary = read_summary(store)
    video_id = load_segments(store, 0, 1).video_id
    record = VideoRecord(
        video_id, f"/videos/{video_id}", f"key of {video_id}", summary.num_segments, summary.num_words, 40.0
    )
    return StorePiece(record, store)


def with_sound(segments: Segments) -> Segments:
    """The segments with a tone each as sound, and its spectrogram left as it was."""
    clips = [
        np.sin(np.arange(clip_length(int(speed), DATA.sample_rate)) * (0.01 + 0.005 * number))
        for number, speed in enumerate(segments.playback_speed)
    ]
    return replace(segments, sound=[encode_flac(clip, DATA.sample_rate) for clip in clips])


def make_shard(
    folder: Path, number: int, stores: Sequence[Path], skipped: Sequence[SkippedFile] = (), sound: Sound = "log_mel"
) -> None:
    write_shard(folder, number, [store_piece(store) for store in stores], skipped, sound=sound)


def make_shard_set(
    folder: Path, videos_in_shards: Sequence[int] = (3, 0, 2), segments: int = 8, sound: Sound = "log_mel"
) -> Manifest:
    """A finished set whose shards hold so many videos of `segments` segments each, numbered through the shards."""
    folder.mkdir(parents=True, exist_ok=True)
    stores_folder = folder.parent / f"{folder.name}-stores"
    stores_folder.mkdir(exist_ok=True)
    stores = make_stores(stores_folder, sum(videos_in_shards), segments)
    if sound == "flac":
        for store in stores:
            save_segments(with_sound(load_segments(store)), store)
    write_settings(folder, settings(len(videos_in_shards), sound))
    first = 0
    for number, count in enumerate(videos_in_shards):
        make_shard(folder, number, stores[first : first + count], sound=sound)
        first += count
    return finish_set(folder)
