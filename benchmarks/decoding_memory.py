"""Memory of a process that decodes thousands of clips, by decoder.

Each decoder has a process of its own, which decodes four frames and the sound of one short clip after another, in
several codecs, sizes and lengths, and notes its memory now and then. DALI takes frames of clips, in the codecs that it
has for this machine, and stored pictures, both in batches. `python -m benchmarks.decoding_memory --save` stores the
result in benchmarks/results; docs/decoding.md shows it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.decoding_videos import Made, write_video
from benchmarks.shards.preparing import store_result
from reserve.data.decode import DECODERS, BatchDecoder, FileDecoder, MediaLimits
from reserve.data.decode.pyav import PyAVDecoder

FILE = "decoding_memory.json"
CLIPS, EVERY, SETTLED = 10_000, 100, 1000
"""Clips, how many between two notes, and after how many every buffer and cache is taken to be there."""
FRAMES = 4
PICTURES = "DALI, stored pictures"
WAYS = {"PyAV": "pyav", "torchcodec": "torchcodec", "DALI, video": "dali"}
"""Decoders of files, by what the plot calls them."""
_BATCH = 8
_VP9 = {"deadline": "realtime", "cpu-used": "8"}
_CLIPS = {
    "h264-small": (Made("libx264", "mp4", 192, 108, {"preset": "veryfast"}), 4),
    "h264-square": (Made("libx264", "mkv", 256, 256, {"preset": "veryfast"}, "libopus", 48000), 1),
    "h264-wide": (Made("libx264", "mp4", 320, 180, {"preset": "veryfast"}, sample_rate=22050), 2),
    "vp9-small": (Made("libvpx-vp9", "webm", 160, 90, _VP9, "libopus", 48000), 3),
    "vp9-wide": (Made("libvpx-vp9", "mp4", 320, 180, _VP9), 2),
    "vp8": (Made("libvpx", "webm", 240, 136, _VP9, "libopus", 48000), 2),
    "av1": (Made("libsvtav1", "mp4", 256, 144, {"preset": "12"}), 2),
    "mjpeg": (Made("mjpeg", "mkv", 160, 120, {}, "flac", 44100, "yuvj420p"), 1),
    "mpeg4": (Made("mpeg4", "avi", 208, 160, {}, "mp3", 44100), 3),
}


@dataclass(frozen=True)
class Clip:
    path: Path
    seconds: int

    @property
    def times(self) -> list[float]:
        return [(place + 0.5) * self.seconds / FRAMES for place in range(FRAMES)]


@dataclass(frozen=True)
class Memory:
    """Bytes of this process: all that is resident, and with shared pages divided among the processes that have them."""

    resident: int
    proportional: int

    @classmethod
    def now(cls) -> Memory:
        return cls(_kilobytes("status", "VmRSS:"), _kilobytes("smaps_rollup", "Pss:"))


def _kilobytes(file: str, field: str) -> int:
    for line in Path("/proc/self", file).read_text("ascii").splitlines():
        if line.startswith(field):
            return int(line.removeprefix(field).split()[0]) * 1024
    raise RuntimeError(f"/proc/self/{file} has no {field}")


def write_clips(folder: Path) -> list[Clip]:
    return [
        Clip(write_video(folder / f"{name}.{made.suffix}", made, seconds), seconds)
        for name, (made, seconds) in _CLIPS.items()
    ]


def decode_files(decoder: FileDecoder, clips: Iterator[Clip]) -> Iterator[int]:
    """Yields the number of clips whenever some are done."""
    for clip in clips:
        with decoder.open(clip.path) as media:
            for frame in media.frames(clip.times):
                assert frame.any()
            assert len(media.soundtrack().waveform)
        yield 1


def decode_batches(decoder: BatchDecoder, clips: Iterator[Clip]) -> Iterator[int]:
    limits = MediaLimits()
    while batch := list(islice(clips, min(_BATCH, decoder.batch_size))):
        requests = []
        for clip in batch:
            with PyAVDecoder().open(clip.path, limits) as media:
                requests.append(decoder.request(media, clip.path, clip.times, limits))
        for frames in decoder.frames_of(requests):
            for frame in frames:
                assert frame.any()
        yield len(batch)


def decode_pictures(clips: Iterator[Clip]) -> Iterator[int]:
    """The stored frames of clips, as the training device decodes them."""
    from reserve.data.dali_pictures import DaliPictures
    from reserve.data.encoded_images import EncodedImage
    from reserve.data.images import decode_picture, encode_jpeg, plan_training_image

    size, rng = (192, 320), np.random.default_rng(0)
    pictures = DaliPictures(size)
    stored: dict[Path, list[bytes]] = {}
    while batch := list(islice(clips, _BATCH)):
        images = []
        for clip in batch:
            if clip.path not in stored:
                with PyAVDecoder().open(clip.path) as media:
                    stored[clip.path] = [encode_jpeg(frame) for frame in media.frames(clip.times)]
            for jpeg in stored[clip.path]:
                width, height = decode_picture(jpeg).size
                plan = plan_training_image(height, width, size, rng)
                images.append(EncodedImage(clip.path.name, jpeg, (height, width), plan))
        assert pictures(images).any()
        yield len(batch)


def suited(name: str, clips: Sequence[Clip]) -> list[Clip]:
    """The clips that this decoder is for. Raises RuntimeError with the reason if it cannot run."""
    decoder = _decoder(name)
    found = []
    for clip in clips:
        with PyAVDecoder().open(clip.path) as media:
            if decoder.unsuited(media.info) is None:
                found.append(clip)
    return found


def _decoder(name: str) -> Any:
    decoder = next(each for each in DECODERS if each.name == name).by_name()
    if (reason := decoder.unavailable()) is not None:
        raise RuntimeError(reason)
    return decoder


def sample(way: str, clips: Sequence[Clip], count: int, every: int) -> dict[str, Any]:
    """Decodes `count` clips in this process; its memory after every `every` of them."""
    run: Callable[[Iterator[Clip]], Iterator[int]]
    if way == PICTURES:
        run, mine = decode_pictures, list(clips)
    else:
        decoder, mine = _decoder(WAYS[way]), suited(WAYS[way], clips)
        decode: Any = decode_batches if isinstance(decoder, BatchDecoder) else decode_files
        run = lambda clips: decode(decoder, clips)  # noqa: E731
    start = time.perf_counter()
    done = 0
    notes: list[Memory] = []
    for finished in run(islice(cycle(mine), count)):
        done += finished
        if done // every > len(notes):
            notes.append(Memory.now())
    return {
        "clips": [clip.path.stem for clip in mine],
        "every": every,
        "resident": [note.resident for note in notes],
        "proportional": [note.proportional for note in notes],
        "seconds": time.perf_counter() - start,
    }


def measure(ways: Sequence[str], count: int = CLIPS, every: int = EVERY) -> dict[str, Any]:
    """The samples of each way, or why there are none. One process after another."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="reserve-memory-") as folder:
        write_clips(Path(folder))
        for way in ways:
            command = [sys.executable, "-m", "benchmarks.decoding_memory", "--way", way, "--folder", folder]
            command += ["--clips", str(count), "--every", str(every)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                found[way] = {"missing": done.stderr.strip().splitlines()[-1]}
            else:
                found[way] = json.loads(done.stdout.splitlines()[-1])
            print(f"{way}: {summary(found[way])}", flush=True)
    return found


def growth(samples: dict[str, Any], settled: int = SETTLED) -> int:
    """Bytes by which the resident memory grew once `settled` clips were decoded: the median of the last tenth of the
    notes over that of as many from there on."""
    notes = samples["resident"]
    first, tenth = settled // samples["every"], max(len(notes) // 10, 1)
    return int(np.median(notes[-tenth:]) - np.median(notes[first - 1 : first - 1 + tenth]))


def summary(samples: dict[str, Any]) -> str:
    if "missing" in samples:
        return samples["missing"]
    notes = samples["resident"]
    count = len(notes) * samples["every"]
    text = f"{count} clips in {samples['seconds']:.0f} s, at most {max(notes) / 1e6:.0f} MB"
    return text + (f", {growth(samples) / 1e6:+.1f} MB after the first {SETTLED}" if count > SETTLED else "")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoding_memory", description=__doc__)
    parser.add_argument("--clips", type=int, default=CLIPS, help=f"how many each process decodes (default: {CLIPS})")
    parser.add_argument("--every", type=int, default=EVERY, help=f"clips between two notes (default: {EVERY})")
    parser.add_argument("--save", action="store_true", help="store the result in benchmarks/results/MACHINE")
    parser.add_argument("--way", choices=(*WAYS, PICTURES), help="measure one in this process, and print it as JSON")
    parser.add_argument("--folder", type=Path, help="where the clips are, with --way")
    options = parser.parse_args(arguments)
    if options.way is not None:
        clips = [Clip(options.folder / f"{name}.{made.suffix}", each) for name, (made, each) in _CLIPS.items()]
        print(json.dumps(sample(options.way, clips, options.clips, options.every)))
        return
    found = measure((*WAYS, PICTURES), options.clips, options.every)
    if options.save:
        store_result(FILE, {"ways": found})


if __name__ == "__main__":
    main()
