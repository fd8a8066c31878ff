"""The synthetic videos that the data sets are made from: which scene each shows when, and clips cut from them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from reserve.data.decode import choose_file_decoder
from reserve.data.decode.protocol import Media
from reserve.errors import BadInput
from reserve.fs import check_regular_file
from reserve.synthetic.encoding import write_video
from reserve.synthetic.story import Scene, Split, is_held_out
from reserve.synthetic.videos import FRAME_RATE

SAMPLE_RATE = 22050
"""Hz, of the synthetic videos and of all clips cut from them."""
CLIP_FRAME_RATE = FRAME_RATE
"""Frames a second of clips."""


@dataclass(frozen=True, slots=True)
class TimedScene:
    """A scene and the seconds of the video that show it."""

    scene: Scene
    start: float
    end: float

    @property
    def is_usual(self) -> bool:
        """Whether training videos show the scene's pair of colour and shape."""
        return not is_held_out(self.scene.colour, self.scene.shape)

    @property
    def middle(self) -> float:
        return (self.start + self.end) / 2


@dataclass(frozen=True, slots=True)
class Story:
    """One synthetic video: `index` is its number in its split, `scenes` are in order and leave no gap."""

    path: Path
    split: Split
    index: int
    scenes: tuple[TimedScene, ...]

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.scenes[-1].end

    @property
    def usual_scenes(self) -> tuple[TimedScene, ...]:
        """The scenes whose pair of colour and shape training videos show too: all of a training video, half of a
        held-out one. Choices about others could be told apart without the picture."""
        return tuple(timed for timed in self.scenes if timed.is_usual) or self.scenes

    def scene_at(self, time: float) -> TimedScene:
        """What is on screen `time` seconds into the video; after its end, the last scene."""
        return next((timed for timed in self.scenes if time < timed.end), self.scenes[-1])

    @property
    def transcript(self) -> Path:
        return self.path.with_suffix(".en.vtt")

    @contextmanager
    def open(self) -> Iterator[Media]:
        """The video, to read frames and sound from."""
        with choose_file_decoder().open(self.path) as media:
            yield media


@dataclass(frozen=True)
class Stories:
    """The videos of a folder that `reserve demo-data` made, split for a data set with train, val and test."""

    train: tuple[Story, ...]
    heldout: tuple[Story, ...]

    def splits(self) -> dict[str, tuple[Story, ...]]:
        """Videos of `train`, `val` and `test`. Every second held-out video is for test; a single one serves both."""
        return {"train": self.train, "val": self.heldout[::2], "test": self.heldout[1::2] or self.heldout}


def read_stories(folder: Path) -> Stories:
    """The videos of `folder`/train and `folder`/heldout. Raises BadInput naming the folder or file that is missing, or
    a file that `reserve demo-data` has not made."""
    return Stories(_read_split(folder, "train"), _read_split(folder, "heldout"))


def read_folder(folder: Path) -> tuple[Story, ...]:
    """The videos of one of the two folders that `reserve demo-data` makes. Raises BadInput as `read_stories` does."""
    for split in get_args(Split):
        if folder.resolve().name == split:
            return _read_split((folder if folder.name == split else folder.resolve()).parent, split)
    raise BadInput(f"{folder} must be one of the folders that `reserve demo-data` makes: {', '.join(get_args(Split))}")


def _read_split(folder: Path, split: Split) -> tuple[Story, ...]:
    paths = sorted((folder / split).glob("*.mp4"))
    if not paths:
        raise BadInput(f"{folder / split} has no videos; make some with `reserve demo-data {folder}`")
    return tuple(_read_story(path, split, index) for index, path in enumerate(paths))


def _read_story(path: Path, split: Split, index: int) -> Story:
    info_path = path.with_suffix(".info.json")
    try:
        check_regular_file(info_path)
        info = json.loads(info_path.read_text("utf-8"))
        chapters, scenes = info["chapters"], [Scene(**scene) for scene in info["scenes"]]
        timed = [
            TimedScene(scene, float(chapter["start_time"]), float(chapter["end_time"]))
            for chapter, scene in zip(chapters, scenes, strict=True)
        ]
        if not timed:
            raise ValueError("no scenes")
    except (BadInput, ValueError, TypeError, KeyError) as error:
        raise BadInput(
            f"{info_path} does not list the video's scenes ({type(error).__name__}: {error}); "
            "make the videos again with `reserve demo-data`"
        ) from error
    return Story(path, split, index, tuple(timed))


def frames_between(media: Media, start: float, end: float, rate: float) -> Iterator[Any]:
    """`rate` frames for each second from `start` to `end`, uint8 [192, 320, 3]; the first is the one on screen at
    `start`."""
    margin = 0.1 / FRAME_RATE  # keeps rounded times from falling into the frame before
    return media.frames([start + number / rate + margin for number in range(int((end - start) * rate + 1e-6))])


def write_clip(
    media: Media, start: float, end: float, path: Path, *, has_sound: bool = True, container: str = "mp4"
) -> None:
    """Writes the seconds from `start` to `end` as a video file of their own; see `write_video`."""
    sound = media.sound(start, end, sample_rate=SAMPLE_RATE) if has_sound else None
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = frames_between(media, start, end, CLIP_FRAME_RATE)
    write_video(path, frames, CLIP_FRAME_RATE, sound, SAMPLE_RATE, container=container)
