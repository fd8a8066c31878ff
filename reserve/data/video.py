"""A video file as the model reads it at inference: segments, their frames and sound, and `embed_video`'s inputs."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from reserve.batch.video_tokens import LENGTH, MAX_SEGMENTS, SUBSEGMENTS, video_tokens
from reserve.config import SEGMENT_SECONDS
from reserve.data.decode import MediaInfo, MediaLimits, choose_file_decoder
from reserve.data.decode.parallel import ParallelReader
from reserve.data.float_images import zero_shot_image
from reserve.data.images import resize, trim_black_bars
from reserve.data.sources.tracks import choose_audio_track
from reserve.data.tokenizer import Tokenizer
from reserve.data.video_sound import SAMPLE_RATE, TimeSpan, normalized, segment_clips
from reserve.errors import BadInput, DecodingTimeout

logger = logging.getLogger(__name__)

_MAX_THREADS = 4

SHORTEST = 1.0
"""Seconds left at the end of a video that still make a segment of their own."""


class VideoInputs(NamedTuple):
    """The arguments of `MerlotReserve.embed_video` for one video, in its order.

    `images` float32 [1, segments, height, width, 3] in [0, 1]; `audio_clips` float32 [1, 3 * segments, 60, 65], None if
    no segment is heard; `tokens` and `subsegments` int32 [1, length], PAD and -1 at the end.
    """

    images: np.ndarray
    audio_clips: np.ndarray | None
    tokens: np.ndarray
    subsegments: np.ndarray


def open_video(
    path: str | Path,
    *,
    audio_track: int | None = None,
    languages: Sequence[str] = ("en",),
    limits: MediaLimits | None = None,
    threads: int | None = None,
) -> Video:
    """Opens a video file for inference.

    From a file to vectors: with `video = open_video(path)`, `model.embed_video(*video.inputs(model.config.image_size))`
    encodes its first 40 s, frames and sound (docs/tasks/zero_shot.md). A file without sound has its frames alone.

    `audio_track` counts from 0; by default it is chosen by `languages`. The file is opened again for each call that
    reads it, so nothing needs closing, and `limits` hold for each call. Frames and sound are decoded by `threads`
    threads, by default one a core, at most 4; where several processes share the cores, let each have one. Raises
    BadInput with the reason if the file has no video that can be decoded.
    """
    limits = limits or MediaLimits()
    decoder = choose_file_decoder(for_spans=True)
    with _named_after(path), decoder.open(path, limits) as media:
        info = media.info
        info.check_video(limits)
        if audio_track is not None:
            info.check_audio(audio_track)
    track = choose_audio_track(info.audio, languages) if audio_track is None else audio_track
    threads = min(os.cpu_count() or 1, _MAX_THREADS) if threads is None else threads
    return Video(Path(path), info, track, ParallelReader(decoder, path, limits, threads=threads))


@contextmanager
def _named_after(path: str | Path) -> Iterator[None]:
    """Names errors in the block after the file."""
    try:
        yield
    except BadInput as error:
        raise type(error)(f"{path}: {error}") from error


class Video:
    """A video file; `open_video` makes one. All times are seconds. Methods raise BadInput if the file is at fault."""

    def __init__(self, path: Path, info: MediaInfo, audio_track: int, reader: ParallelReader) -> None:
        self.path, self.info, self.audio_track = path, info, audio_track
        self._reader = reader

    @property
    def has_sound(self) -> bool:
        """Whether there is an audio track that can be decoded."""
        return bool(self.info.audio) and self.info.audio[self.audio_track].decodable

    @cached_property
    def can_be_heard(self) -> bool:
        """Whether there is sound, which is decoded to find out. A warning says why a track cannot be used, such as one
        that is empty. Raises DecodingTimeout, since a faster machine would hear it."""
        if not self.has_sound:
            return False
        try:
            return bool(len(self.waveform))
        except DecodingTimeout:
            raise
        except BadInput as error:
            logger.warning("%s: it is read without sound", error)
            return False

    @cached_property
    def duration(self) -> float:
        """Length in seconds, where the last packet of sound or picture ends; at most `MediaLimits.max_duration`, with a
        warning, since the rest is not read."""
        with _named_after(self.path), self._reader.open() as media:
            found = media.duration()
        if found >= self._reader.limits.max_duration:
            logger.warning("%s: only %s are read", self.path, self._part_read)
        return found

    @property
    def is_cut(self) -> bool:
        """Whether the file goes on after what is read of it."""
        return self.duration >= self._reader.limits.max_duration

    @property
    def _part_read(self) -> str:
        return f"its first {self._reader.limits.max_duration / 3600:g} h"

    @cached_property
    def waveform(self) -> np.ndarray:
        """The whole audio track divided by its peak: mono, 22050 Hz, float32 [samples].

        It is kept, since the peak can be anywhere: 320 MB for an hour, and twice that while it is decoded.
        """
        with _named_after(self.path), self._reader.open() as media:
            return normalized(media.soundtrack(track=self.audio_track, sample_rate=SAMPLE_RATE).waveform)

    def segments(
        self,
        *,
        start: float = 0.0,
        stop: float | None = None,
        seconds: float = SEGMENT_SECONDS,
        most: int = MAX_SEGMENTS,
    ) -> tuple[TimeSpan, ...]:
        """Consecutive segments of `seconds` from `start` on, at most `most`, with the frame in the middle.

        They end at `stop`, by default with the video, where the last one may be shorter. A rest of less than a second
        is left out unless it is all there is. A longer video is read in several calls with other values of `start`.
        Raises ValueError for bad settings and BadInput if the video ends before `start`.
        """
        for name, value, least in (("start", start, 0.0), ("seconds", seconds, SHORTEST), ("most", most, 1)):
            if not least <= value < math.inf:
                raise ValueError(f"{name} must be finite and at least {least:g}; got {value}")
        if stop is not None and not stop > start:
            raise ValueError(f"stop must be after start, {start:g}; got {stop}")
        if start > 0 and start >= self.duration:
            where = f"only {self._part_read} are read" if self.is_cut else f"it ends at {self.duration:.1f} s"
            raise BadInput(f"{self.path}: {where}; no segment can start at {start:g} s")
        stop = self.duration if stop is None else min(stop, self.duration)
        spans: list[TimeSpan] = []
        while len(spans) < most and (stop - start >= SHORTEST or not spans):
            end = min(start + seconds, stop)
            spans.append(TimeSpan(start, end, (start + end) / 2))
            start = end
        return tuple(spans)

    def frames(self, times: Iterable[float]) -> list[np.ndarray]:
        """The frame on screen at each of `times`, in any order: uint8 RGB [height, width, 3], all of one size.

        Times are rounded to milliseconds; each distinct one is decoded once. After the end it is the last frame.
        """
        wanted = [round(float(time), 3) for time in times]
        distinct = sorted(set(wanted))
        with _named_after(self.path):
            decoded = self._reader.frames(distinct)
        return _of_one_size(dict(zip(distinct, decoded, strict=True)), wanted)

    def _frames_beside_waveform(self, times: Iterable[float]) -> list[np.ndarray]:
        """What `frames` returns; `waveform` is decoded at the same time unless its track is at fault."""
        wanted = [round(float(time), 3) for time in times]
        distinct = sorted(set(wanted))
        try:
            with _named_after(self.path):
                decoded, sound = self._reader.frames_and_sound(
                    distinct, track=self.audio_track, sample_rate=SAMPLE_RATE
                )
        except DecodingTimeout:
            raise
        except BadInput:
            return self.frames(wanted)  # It says what is wrong with the pictures, `waveform` what with the sound.
        self.waveform = normalized(sound.waveform)
        return _of_one_size(dict(zip(distinct, decoded, strict=True)), wanted)

    def images(self, segments: Sequence[tuple[float, float, float]], size: tuple[int, int]) -> np.ndarray:
        """The frames in the middle of segments as the vision encoder takes them: float32 [segments, *size, 3].

        The bars that are black in all of these frames are trimmed, at most a fifth of a side at each end.
        """
        return _images(self.frames(mid for _, _, mid in segments), size)

    def clips(self, segments: Sequence[tuple[float, float, float]]) -> np.ndarray:
        """The sound of segments as the audio encoder takes it: float32 [segments, 3, 60, 65].

        A segment of less than 5 s lies in the middle of silence; a longer one gives the 5 s around its middle.
        """
        return segment_clips(self.waveform, segments)

    def inputs(
        self,
        image_size: tuple[int, int],
        segments: Sequence[tuple[float, float, float]] | None = None,
        *,
        texts: Mapping[int, str | Sequence[int]] | None = None,
        tokenizer: Tokenizer | None = None,
        audio: bool | None = None,
        length: int = LENGTH,
    ) -> VideoInputs:
        """What `MerlotReserve.embed_video` takes, for `segments` (by default `self.segments()`).

        Args:
            image_size: Height and width in pixels, a model's `config.image_size`.
            segments: At most 8 of (start, end, mid) in seconds. The frame is the one at mid.
            texts: Text or token ids by the segment's number, which may count from the end: {-1: "a man is <|MASK|>."}.
                These segments show their frame, but are read rather than heard.
            tokenizer: Encodes texts; by default the vocabulary of this package. A released checkpoint needs its own.
            audio: Whether the other segments are heard or have frames alone; by default they are heard if the file has
                sound that can be decoded. Without sound and texts there are no language tokens, and all vectors of
                `embed_video` are 0.
            length: Language tokens of the sequence; more are cut from the end.

        Raises BadInput if a segment must be heard but the file has no sound, ValueError for bad arguments.
        """
        segments = self.segments() if segments is None else segments
        by_segment = self._texts(texts or {}, len(segments), tokenizer)
        mids = [mid for _, _, mid in segments]
        hears = None in by_segment and audio is not False and self.has_sound and "waveform" not in vars(self)
        frames = self._frames_beside_waveform(mids) if hears else self.frames(mids)
        if None in by_segment and not (self.can_be_heard if audio is None else audio):
            by_segment = [() if text is None else text for text in by_segment]
        tokens = video_tokens(by_segment, length=length)
        heard = [number for number, text in enumerate(by_segment) if text is None]
        clips = None
        if heard:
            if not self.has_sound:
                raise BadInput(f"{self.path}: no sound that can be decoded; audio=False gives frames and texts alone")
            found = self.clips([segments[number] for number in heard])
            clips = np.zeros((len(segments), *found.shape[1:]), dtype=np.float32)
            clips[heard] = found
            clips = clips.reshape(1, SUBSEGMENTS * len(segments), *found.shape[2:])
        return VideoInputs(_images(frames, image_size)[None], clips, tokens.ids[None], tokens.subsegments[None])

    @staticmethod
    def _texts(
        texts: Mapping[int, str | Sequence[int]], segments: int, tokenizer: Tokenizer | None
    ) -> list[Sequence[int] | None]:
        """The token ids of each segment's text, None for one without."""
        by_segment: list[Sequence[int] | None] = [None] * segments
        for number, text in texts.items():
            if not -segments <= number < segments:
                raise ValueError(f"texts must be of segments {-segments} to {segments - 1}; got {number}")
            if isinstance(text, str):
                tokenizer = tokenizer or Tokenizer.load()
                text = tokenizer.encode(text)
            by_segment[number] = text
        return by_segment


def _of_one_size(decoded: Mapping[float, np.ndarray], wanted: Iterable[float]) -> list[np.ndarray]:
    """The frame of each wanted time. Streams may change their size midway: the first frame's holds."""
    height, width = next(iter(decoded.values())).shape[:2] if decoded else (0, 0)
    found = {time: resize(frame, height, width) for time, frame in decoded.items()}
    return [found[time] for time in wanted]


def _images(frames: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """See `Video.images`."""
    return np.stack([zero_shot_image(frame, size) for frame in trim_black_bars(frames, trim_black=True)])
