"""Preparation of videos into shards: seconds a video by stage, the whole command's rate by processes, and bytes.

`python -m benchmarks.shards.preparing --save` measures synthetic narrated videos and stores the result in
benchmarks/results; docs/twenty_million.md shows it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.__main__ import RESULTS, machine_name
from benchmarks.machine import torch_threads
from reserve.config import DataConfig, FilterConfig
from reserve.data.decode import choose_file_decoder
from reserve.data.decode.protocol import Deadline, FileDecoder, MediaLimits
from reserve.data.filters import screen_store
from reserve.data.prepare.segments import SegmentSound, cut_windows, stored_frames, video_rng, window_words
from reserve.data.prepare.words import find_words
from reserve.data.shards.files import LocalFiles
from reserve.data.shards.index import ShardIndex
from reserve.data.shards.layout import Sound
from reserve.data.shards.pieces import StorePiece
from reserve.data.shards.read import ShardSet
from reserve.data.shards.records import VideoRecord
from reserve.data.shards.write import write_shard
from reserve.data.sources.discover import VideoSource, discover_sources
from reserve.data.sources.metadata import load_metadata
from reserve.data.sources.tracks import choose_audio_track
from reserve.data.store import save_segments
from reserve.data.types import Segments

FILE = "shards_preparing.json"
STAGES = {
    "open": "open the file, read its headers and metadata",
    "sound": "decode and resample the sound",
    "words": "read the transcript, cut the segments",
    "spectrograms": "log-mel spectrograms",
    "frames": "decode the video, one frame a segment",
    "pictures": "resize, trim, encode as JPEG",
    "store": "write the store file",
    "filters": "static pictures, words, language, signature",
    "shard": "pack into the shard, with checksums",
}
WORKERS = (1, 2, 3, 4)
PARTS = ("by_stage", "by_processes", "sizes")


class Stages:
    """Seconds spent in each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._last = time.perf_counter()

    def end(self, stage: str) -> None:
        """Counts the time since the end of another stage for `stage`."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._last
        self._last = now

    def timed(self, items: Iterable[Any], inside: str, outside: str) -> Iterator[Any]:
        """Counts making the items for the stage `inside`, and what is done with them for `outside`."""
        for item in items:
            self.end(inside)
            yield item
            self.end(outside)


def prepare_by_stages(source: VideoSource, decoder: FileDecoder, folder: Path) -> tuple[dict[str, float], StorePiece]:
    """Prepares a video as `prepare_video` does, up to its store file, and screens it."""
    data, limits = DataConfig(), MediaLimits()
    stages = Stages()
    with decoder.open(source.path, limits, Deadline(limits.max_decode_seconds)) as media:
        media.info.check_video(limits)
        track = choose_audio_track(media.info.audio, data.languages)
        metadata, _ = load_metadata(source.info)
        stages.end("open")
        soundtrack = media.soundtrack(track=track, sample_rate=data.sample_rate)
        stages.end("sound")
        words, choice, _ = find_words(source, media, track, soundtrack.media_end, data.languages)
        windows = cut_windows(words, soundtrack.media_end, video_rng(0, source.video_id))
        spoken = [window_words(words, window) for window in windows]
        stages.end("words")
        log_mel = SegmentSound.of(soundtrack, windows, data.sample_rate).log_mels(data)
        stages.end("spectrograms")
        frames = media.frames(tuple((window.start + window.end) / 2 for window in windows))
        stored = stored_frames(stages.timed(frames, "frames", "pictures"))
        stages.end("pictures")
    segments = Segments(
        source.video_id,
        np.array([window.start for window in windows]),
        np.array([window.playback_speed for window in windows], np.int32),
        stored,
        log_mel,
        spoken,
        metadata,
    )
    store = folder / f"{len(list(folder.iterdir()))}.safetensors"
    save_segments(segments, store, choice=choice)
    stages.end("store")
    screen_store(store, FilterConfig())
    stages.end("filters")
    record = VideoRecord(source.video_id, "", "", len(segments), sum(map(len, spoken)), soundtrack.media_end)
    return stages.seconds, StorePiece(record, store)


def measure_stages(videos: Path, count: int) -> dict[str, Any]:
    """Mean seconds a video of each stage, in one process with one thread."""
    decoder = choose_file_decoder()
    rows: dict[str, list[float]] = defaultdict(list)
    seconds, segments = 0.0, 0
    with tempfile.TemporaryDirectory() as folder, torch_threads(1):
        stores, out = Path(folder) / "stores", Path(folder) / "out"
        stores.mkdir()
        out.mkdir()
        sources = discover_sources([videos])[: count + 1]
        for number, source in enumerate(sources):
            spent, piece = prepare_by_stages(source, decoder, stores)
            if number == 0:  # imports and first calls
                continue
            start = time.perf_counter()
            write_shard(out, number, [piece], (), sound="log_mel")
            spent["shard"] = time.perf_counter() - start
            seconds += piece.record.seconds
            segments += piece.record.segments
            for stage in STAGES:
                rows[stage].append(spent[stage])
    return {
        "videos": count,
        "video_seconds": seconds / count,
        "segments": segments / count,
        "stages": {stage: statistics.mean(times) for stage, times in rows.items()},
    }


def prepare(videos: Path, out: Path, workers: int, sound: Sound = "log_mel") -> float:
    """Seconds that the command takes."""
    start = time.perf_counter()
    options = ["--workers", str(workers), "--sound", sound]
    command = [sys.executable, "-m", "reserve", "prepare", str(videos), str(out), *options]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def measure_growth(videos: Path, count: int, rounds: int) -> dict[str, Any]:
    """Median seconds of the whole command on `count` videos for each number of processes, taken in turn."""
    rows = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        few = Path(folder) / "videos"
        few.mkdir()
        for source in discover_sources([videos])[:count]:
            for file in (source.path, *source.transcripts, *([source.info] if source.info else [])):
                (few / file.name).symlink_to(file)
        for turn in range(rounds):
            for workers in WORKERS:
                rows[workers].append(prepare(few, Path(folder) / f"out-{turn}-{workers}", workers))
    return {
        "videos": count,
        "rounds": rounds,
        "seconds": {str(workers): statistics.median(times) for workers, times in rows.items()},
    }


def measure_bytes(videos: Path, out: Path, workers: int) -> dict[str, Any]:
    """Bytes of all videos as files and as shards, by what they are for."""
    sources = discover_sources([videos])
    result: dict[str, Any] = {
        "videos": len(sources),
        "source_bytes": sum(source.path.stat().st_size for source in sources),
        "photograph_bytes": photograph_bytes(),
    }
    for sound in ("log_mel", "flac"):
        folder = out / sound
        prepare(videos, folder, workers, sound)
        result[sound] = count_bytes(folder)
    return result


def photograph_bytes() -> int:
    """Bytes of a photograph as a stored frame of 16:9."""
    from matplotlib import get_data_path
    from PIL import Image

    with Image.open(Path(get_data_path()) / "sample_data" / "grace_hopper.jpg") as file:
        picture = np.asarray(file.convert("RGB"))
    height = picture.shape[1] * 9 // 16
    (frame,) = stored_frames([np.ascontiguousarray(picture[:height])])
    return len(frame)


def count_bytes(folder: Path) -> dict[str, Any]:
    """What a finished set holds."""
    found = ShardSet.open(folder)
    sizes = np.zeros(3, np.int64)
    files = LocalFiles(folder)
    for part in found.parts:
        sizes += ShardIndex(files.path(f"{part.name.rpartition('/')[2]}.index")).member_sizes.astype(np.int64).sum(0)
    manifest = asdict(found.manifest)
    tars = [entry["tar"]["bytes"] for entry in manifest["shards"] if entry["tar"]]
    indexes = [entry["index"]["bytes"] for entry in manifest["shards"] if entry["index"]]
    records = [entry["record"]["bytes"] for entry in manifest["shards"]]
    return {
        **{name: manifest[name] for name in ("videos", "segments", "words", "seconds", "skipped")},
        "shards": len(tars),
        "pictures": int(sizes[0]),
        "sound": int(sizes[1]),
        "text": int(sizes[2]),
        "framing": sum(tars) - int(sizes.sum()),
        "index": sum(indexes),
        "record": sum(records),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shards.preparing", description=__doc__)
    parser.add_argument("parts", nargs="*", default=PARTS, help=f"of {', '.join(PARTS)}; by default all")
    parser.add_argument("--videos", type=Path, help="a folder of videos; by default 1,000 are made")
    parser.add_argument("--staged", type=int, default=40, help="videos measured by stage")
    parser.add_argument("--grown", type=int, default=160, help="videos of the measurement by processes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="store the result in benchmarks/results/MACHINE")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        videos = options.videos
        if videos is None:
            from reserve.synthetic.videos import make_videos

            make_videos(Path(folder) / "videos", videos=1000, held_out=0, seed=3)
            videos = Path(folder) / "videos" / "train"
        measures = {
            "by_stage": lambda: measure_stages(videos, options.staged),
            "by_processes": lambda: measure_growth(videos, options.grown, options.rounds),
            "sizes": lambda: measure_bytes(videos, Path(folder), workers=2),
        }
        result = {part: measures[part]() for part in options.parts}
    print(json.dumps(result, indent=1))
    if options.save:
        store_result(FILE, result)


def store_result(name: str, result: Mapping[str, Any]) -> None:
    """Stores parts of a result beside those stored before."""
    path = RESULTS / machine_name("cpu") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(path.read_text("utf-8")) if path.exists() else {}
    whole = {**before, **result, "torch": torch.__version__}
    path.write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    main()
