"""Small videos for sets of shards, and what of two sets must be equal."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from reserve.config import DataConfig, FilterConfig
from reserve.data.decode.protocol import Deadline, Media, MediaLimits
from reserve.data.decode.pyav import PyAVDecoder
from reserve.data.prepare.shards import Preparation, prepare_shards
from tests.helpers.media_files import Sound, click_track, number_picture, write_media

SECONDS = 12
SPELLED = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def make_video(path: Path, number: int) -> Path:
    """A video of two segments whose pictures, sound and words depend on `number`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_media(
        path,
        frame_times=range(SECONDS),
        picture=lambda index: number_picture((7 * number + 29 * index) % 256),
        sounds=[Sound(click_track(SECONDS, [1.0 + number % 5, 7.0], rate=16000), rate=16000)],
    )
    write_words(path, number)
    return path


def write_words(path: Path, number: int) -> None:
    """Writes the transcript of a video."""
    spelled = " ".join(SPELLED[int(digit)] for digit in f"{number * 7919 % 9973:04d}{number:03d}")
    words = [f"{word}{SPELLED[(number + place) % 10]}" for place, word in enumerate(spelled.split() * 4)]
    spoken = [{"word": word, "start": i * 0.4, "end": i * 0.4 + 0.4} for i, word in enumerate(words)]
    path.with_suffix(".json").write_text(json.dumps(spoken))


def make_videos(folder: Path, count: int = 5) -> Path:
    """A folder of `count` good videos and a file that is none."""
    for number in range(count):
        make_video(folder / f"video {number}.mp4", number)
    (folder / "noise.mp4").write_bytes(b"no video")
    return folder


def prepare(videos: Path, out: Path, **options: Any) -> Preparation:
    """Prepares in this process, into shards of two videos on average. With PyAV by name: records say why "auto" passes
    others over, which depends on what is installed and on what a test puts into their table."""
    filters = options.pop("filters", FilterConfig())
    defaults = {"workers": 0, "videos_per_shard": 2, "decoder": "pyav"}
    return prepare_shards([videos], out, DataConfig(), filters, **{**defaults, **options})


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a set."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


class SpyPyAV(PyAVDecoder):
    """Records the names of the files that it opens, in this process."""

    def __init__(self) -> None:
        self.opened: list[str] = []

    def open(self, path: Path, limits: MediaLimits, deadline: Deadline | None = None) -> Media:
        self.opened.append(path.name)
        return super().open(path, limits, deadline)


class HostilePyAV(PyAVDecoder):
    """Dies of a file named crash.mp4, and hangs at hang.mp4."""

    def open(self, path: Path, limits: MediaLimits, deadline: Deadline | None = None) -> Media:
        if path.name == "crash.mp4":
            os.kill(os.getpid(), signal.SIGSEGV)
        if path.name == "hang.mp4":
            time.sleep(3600)
        return super().open(path, limits, deadline)
