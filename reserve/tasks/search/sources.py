"""What an index is made of: video files, and shards of prepared sets. Each becomes a part of the index."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np

from reserve.batch.video_tokens import SUBSEGMENTS
from reserve.config import SEGMENT_SECONDS, DataConfig, TrainConfig
from reserve.data.float_images import zero_shot_image
from reserve.data.images import decode_jpeg
from reserve.data.shards.files import is_url
from reserve.data.shards.layout import MANIFEST, SETTINGS
from reserve.data.shards.read import Shard, ShardPart
from reserve.data.sources.discover import discover_sources
from reserve.data.video import open_video
from reserve.data.video_sound import TimeSpan
from reserve.errors import BadInput
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.pretrain.dataset import audio_clips
from reserve.tasks.pretrain.masking import inference_subsegment_starts
from reserve.tasks.pretrain.shard_sets import absolute_place, open_sets
from reserve.tasks.search.encoding import Window, encode_windows
from reserve.tasks.search.parts import Moments
from reserve.tasks.windows import even_windows, video_windows

logger = logging.getLogger(__name__)

WINDOWS_AT_ONCE = 5
"""Windows that are encoded together: their 15 sequences are one batch of the joint encoder."""
SHORTEST = 0.01
"""Seconds of a segment that make a moment of a subsegment."""


WindowsDone = Callable[[int, int], None]


@dataclass(frozen=True)
class EncodedVideos:
    """What a source became: its `videos` by name with their moments, and for each that was `skipped` the reason."""

    videos: tuple[str, ...]
    moments: Moments
    skipped: tuple[str, ...] = ()


class Source(Protocol):
    """Videos that are one part of an index. `identity` names them; `place` is the set of shards, empty for a file."""

    @property
    def identity(self) -> str: ...

    @property
    def place(self) -> str: ...

    def key(self) -> str:
        """Changes whenever the videos do. Raises BadInput if they are gone."""
        ...

    def encode(
        self,
        model: MerlotReserve,
        turn: threading.Lock,
        windows: WindowsDone | None = None,
        known: EncodedVideos | None = None,
    ) -> EncodedVideos:
        """Decodes and encodes the videos; holds `turn` while the model runs. Raises BadInput naming the file.

        `windows` is called before each window with the windows that are encoded and how many there are. Videos of
        `known`, an earlier result for the same key, are not encoded again.
        """
        ...


def find_sources(places: Sequence[str | os.PathLike[str]], config: TrainConfig) -> list[Source]:
    """The sources in some places: video files, folders that are searched for them, and sets of shards, whose folders
    hold a manifest.json or which are URLs.

    Raises BadInput for a place that does not exist or holds no videos, ValueError for shards of other settings than a
    model reads.
    """
    names = [os.fspath(place) for place in places]
    sets = [name for name in names if is_url(name) or _holds_shards(Path(name))]
    found: list[Source] = []
    for place, each in zip(sets, open_sets(sets, DataConfig(), config), strict=True):
        found += [ShardOfSet(part, absolute_place(place), each.manifest.digest) for part in each.parts]
    if videos := [name for name in names if name not in sets]:
        found += [VideoFile(Path(os.path.abspath(source.path))) for source in discover_sources(videos)]
    return found


def _holds_shards(folder: Path) -> bool:
    """Whether a folder is a set of shards, also one that is not finished."""
    rest = (folder / MANIFEST).is_file() or next(folder.glob("shard-*.tar"), None) is not None
    return rest and (folder / SETTINGS).is_file()


@dataclass(frozen=True)
class VideoFile:
    """A video file by its absolute path."""

    path: Path
    place: str = ""

    @property
    def identity(self) -> str:
        return str(self.path)

    def key(self) -> str:
        """The path, size and time of modification."""
        try:
            status = self.path.stat()
        except OSError as error:
            raise BadInput(f"{self.path}: {error.strerror}") from error
        return f"{self.path}\n{status.st_size}\n{status.st_mtime_ns}"

    def encode(
        self,
        model: MerlotReserve,
        turn: threading.Lock,
        windows: WindowsDone | None = None,
        known: EncodedVideos | None = None,
    ) -> EncodedVideos:
        if known is not None:  # it holds the one video there is
            return known
        timed = self._windows(model.config.image_size, windows)
        return EncodedVideos((str(self.path),), _encoded(model, timed, turn))

    def _windows(self, size: tuple[int, int], done: WindowsDone | None) -> Iterator[tuple[Window, np.ndarray]]:
        video = open_video(self.path)
        windows = video_windows(video)
        for number, spans in enumerate(windows):
            if done is not None:  # those before it are encoded, but for the few that wait to be one batch
                done(number, len(windows))
            clips = video.clips(spans) if video.can_be_heard else None
            yield Window(video.images(spans, size), clips), np.stack([subsegment_times(span) for span in spans])


@dataclass(frozen=True)
class ShardOfSet:
    """A shard of the set at `place`, whose `digest` changes with the set's contents."""

    part: ShardPart
    place: str
    digest: str

    @property
    def identity(self) -> str:
        return f"{self.digest} {self.part.number}"

    def key(self) -> str:
        return self.identity

    def encode(
        self,
        model: MerlotReserve,
        turn: threading.Lock,
        windows: WindowsDone | None = None,
        known: EncodedVideos | None = None,
    ) -> EncodedVideos:
        shard = self.part.open()
        before = {} if known is None else {name: number for number, name in enumerate(known.videos)}
        runs = [even_windows(segments) for segments in shard.segment_counts().tolist()]
        done, total = 0, sum(map(len, runs))
        videos, moments, skipped = [], [], []
        for number, own in enumerate(runs):
            name = shard.video_id(number)
            try:
                if known is not None and name in before:
                    found = _of_video(known.moments, before[name])
                else:
                    tell = None if windows is None else partial(_tell, windows, done, total)
                    found = _encoded(model, self._windows(shard, number, model, own, tell), turn)
            except BadInput as error:  # damaged; the shard's other videos may be whole
                logger.warning("%s; the video is left out", error)
                skipped.append(str(error))
                continue
            finally:
                done += len(own)
            videos.append(name)
            moments.append(found)
        return EncodedVideos(tuple(videos), _joined(moments, model.config.hidden_size), tuple(skipped))

    def _windows(
        self, shard: Shard, video: int, model: MerlotReserve, runs: Sequence[range], tell: Callable[[int], None] | None
    ) -> Iterator[tuple[Window, np.ndarray]]:
        size, length = model.config.image_size, model.config.audio_seq_length
        starts = inference_subsegment_starts(self.part.data, length)[:1]
        thirds = np.arange(SUBSEGMENTS + 1) / SUBSEGMENTS
        for number, run in enumerate(runs):
            if tell is not None:
                tell(number)
            segments = shard.load(video, run.start, run.stop)
            with shard.naming(video):
                images = np.stack([zero_shot_image(decode_jpeg(jpeg), size) for jpeg in segments.frames])
            mels = segments.log_mel.astype(np.float32)
            clips = audio_clips(mels, segments.playback_speed, starts.repeat(len(mels), axis=0), length)
            edges = segments.start[:, None] + SEGMENT_SECONDS * segments.playback_speed[:, None] * thirds
            times = np.stack((edges[:, :-1], edges[:, 1:]), axis=2)
            yield Window(images, clips.reshape(-1, SUBSEGMENTS, *clips.shape[1:])), times


def _tell(windows: WindowsDone, before: int, total: int, number: int) -> None:
    windows(before + number, total)


def subsegment_times(span: TimeSpan) -> np.ndarray:
    """Start and end of the three subsegments of a segment, which is heard as 5 s around its middle: float64 [3, 2].

    Of a segment of less than 5 s, those in the silence around it have no length.
    """
    edges = span.mid + SEGMENT_SECONDS * (np.arange(SUBSEGMENTS + 1) / SUBSEGMENTS - 0.5)
    edges = edges.clip(span.start, span.end)
    return np.stack((edges[:-1], edges[1:]), axis=1)


def _encoded(model: MerlotReserve, timed: Iterator[tuple[Window, np.ndarray]], turn: threading.Lock) -> Moments:
    """The moments of one video from its windows, each with the times [segments, 3, 2] of its subsegments."""
    found: list[Moments] = []
    while batch := list(islice(timed, WINDOWS_AT_ONCE)):
        with turn:
            vectors = encode_windows(model, [window for window, _ in batch])
        for (_, times), window in zip(batch, vectors, strict=True):
            kept = times[..., 1] - times[..., 0] >= SHORTEST
            words = window.words[kept].astype(np.float16)
            sounds = words[:0] if window.sounds is None else window.sounds[kept].astype(np.float16)
            if not (np.isfinite(words).all() and np.isfinite(sounds).all()):
                raise ValueError(
                    "the model's vectors are not finite; its weights are damaged, or bfloat16 is too narrow"
                )
            start, end = times[kept].T
            found.append(Moments(start, end, np.zeros(len(start), np.int32), words, sounds, _numbers(len(sounds))))
    joined = _joined(found, model.config.hidden_size)
    return Moments(
        joined.start, joined.end, np.zeros_like(joined.video), joined.words, joined.sounds, joined.sound_moment
    )


def _of_video(moments: Moments, video: int) -> Moments:
    """The moments of one of several videos."""
    own = moments.video == video
    heard = own[moments.sound_moment]
    return Moments(
        start=moments.start[own],
        end=moments.end[own],
        video=np.zeros(int(own.sum()), np.int32),
        words=moments.words[own],
        sounds=moments.sounds[heard],
        sound_moment=(np.cumsum(own) - 1)[moments.sound_moment[heard]].astype(np.int32),
    )


def _joined(moments: Sequence[Moments], hidden: int) -> Moments:
    """The moments of several videos, numbered in their order."""
    nothing = np.zeros((0, hidden), np.float16)
    counts = [len(each.start) for each in moments]
    first = np.cumsum([0, *counts])
    return Moments(
        start=np.concatenate([np.zeros(0), *(each.start for each in moments)]),
        end=np.concatenate([np.zeros(0), *(each.end for each in moments)]),
        video=np.repeat(_numbers(len(counts)), counts),
        words=np.concatenate([nothing, *(each.words for each in moments)]),
        sounds=np.concatenate([nothing, *(each.sounds for each in moments)]),
        sound_moment=np.concatenate(
            [_numbers(0), *(each.sound_moment + np.int32(base) for each, base in zip(moments, first[:-1], strict=True))]
        ),
    )


def _numbers(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.int32)
