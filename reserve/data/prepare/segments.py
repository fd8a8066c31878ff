"""Cuts a video into the segments of SPEC 1: windows of time, and the frame, log-mel spectrogram and words of each."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from reserve.config import MAX_PLAYBACK_SPEED, SEGMENT_SECONDS, DataConfig
from reserve.data.ahead import work_ahead
from reserve.data.decode.protocol import Soundtrack
from reserve.data.images import (
    STORED_LONGER_SIDE,
    STORED_SHORTER_SIDE,
    BlackBars,
    bounded_size,
    decode_jpeg,
    encode_jpeg,
    resize,
    waiting_size,
)
from reserve.data.segment_sound import clip_length, encode_flac, log_mels
from reserve.data.types import Word
from reserve.errors import BadInput

Item = TypeVar("Item")
Result = TypeVar("Result")
ENOUGH_WORDS = 8
"""Words in a window that end the search for its playback speed."""
ENOUGH_WORDS_AHEAD = 16
"""Words in a window extended by SEGMENT_SECONDS that end the search before the extension."""
_STOP_PROBABILITY = 0.1
_UNUSED_END = 1.0
"""Seconds at the end of a video that stay unused."""
# Until the black bars are known, frames wait as nearly lossless JPEGs, large enough for any trimming.
_WAITING_QUALITY = 95
_WAITING_BYTES = 2**25
"""More of them wait on disk."""


@dataclass(frozen=True, slots=True)
class Window:
    """A segment's place in its video: `start` seconds, `playback_speed` 1 to 3, and its words (indices first to
    last - 1 in the order of their centres)."""

    start: float
    playback_speed: int
    words: range

    @property
    def end(self) -> float:
        return round(self.start + SEGMENT_SECONDS * self.playback_speed, 2)


def video_rng(seed: int, video_id: str) -> np.random.Generator:
    """The random numbers of one video's preparation: the same for one seed and id in any process and order."""
    digest = hashlib.sha256(video_id.encode("utf-8", errors="surrogateescape")).digest()
    return np.random.default_rng(np.random.SeedSequence([seed, *np.frombuffer(digest, dtype=np.uint32).tolist()]))


def cut_windows(words: Sequence[Word], duration: float, rng: np.random.Generator) -> list[Window]:
    """The segments of a video of `duration` seconds with `words` in the order of their centres (SPEC 1).

    Like the reference, stops after the last word. Empty if the video is too short.
    """
    if not words:
        return []
    centres = np.array([centre(word) for word in words])
    end = duration - _UNUSED_END
    start = round(max(words[0].start - rng.uniform(0, SEGMENT_SECONDS / 2), 0.0), 2)
    windows: list[Window] = []
    first = 0
    while first < len(words) and start + SEGMENT_SECONDS <= end:
        speed, last = _search_speed(centres, first, start, end, rng)
        windows.append(Window(start, speed, range(first, last)))
        start, first = windows[-1].end, last
    return windows


def _search_speed(
    centres: np.ndarray, first: int, start: float, end: float, rng: np.random.Generator
) -> tuple[int, int]:
    """The playback speed of the segment at `start`, and the index after its last word."""
    for speed in range(1, MAX_PLAYBACK_SPEED + 1):
        stop = start + SEGMENT_SECONDS * speed
        last = max(int(np.searchsorted(centres, stop)), first)
        ahead = int(np.searchsorted(centres, stop + SEGMENT_SECONDS)) - first
        if last - first >= ENOUGH_WORDS or stop + SEGMENT_SECONDS > end or ahead >= ENOUGH_WORDS_AHEAD:
            break
        if rng.uniform() < _STOP_PROBABILITY:
            break
    return speed, last


def centre(word: Word) -> float:
    """Middle of a word's time, seconds."""
    return (word.start + word.end) / 2


def window_words(words: Sequence[Word], window: Window) -> list[Word]:
    """A window's words, with times counted from its start and divided by its playback speed."""
    speed = window.playback_speed
    return [
        Word(word.text, (word.start - window.start) / speed, (word.end - window.start) / speed)
        for word in (words[index] for index in window.words)
    ]


@dataclass(frozen=True, slots=True)
class SegmentSound:
    """The sound of each of `windows`: of a whole track divided by its peak, followed by silence."""

    soundtrack: Soundtrack
    windows: Sequence[Window]
    peak: float

    @classmethod
    def of(cls, soundtrack: Soundtrack, windows: Sequence[Window], sample_rate: int) -> SegmentSound:
        if soundtrack.sample_rate != sample_rate:
            raise ValueError(f"soundtrack must have {sample_rate} Hz; got {soundtrack.sample_rate}")
        return cls(soundtrack, windows, soundtrack.peak())

    def clip(self, index: int) -> np.ndarray:
        """The sound of a window, the track's peak at 1: float32 [5 s times its playback speed]."""
        rate = self.soundtrack.sample_rate
        window = self.windows[index]
        first = int(rate * window.start)
        length = clip_length(window.playback_speed, rate)
        sound = self.soundtrack.waveform[first : first + length]
        clip = np.pad(sound, (0, length - len(sound))) / self.peak
        self.soundtrack.release()
        return clip

    def log_mels(self, config: DataConfig) -> np.ndarray:
        """Log-mel spectrograms: float16 [windows, spec_size, num_mels] (SPEC 2)."""
        return log_mels(self.clip, [window.playback_speed for window in self.windows], config)

    def flac(self) -> list[bytes]:
        """Each window's sound as a FLAC file."""
        return [encode_flac(self.clip(index), self.soundtrack.sample_rate) for index in range(len(self.windows))]


def stored_frames(frames: Iterable[np.ndarray], *, threads: int = 0) -> list[bytes]:
    """The frames of one video, uint8 [h, w, 3], as JPEG files with the bars that are black in all of them trimmed and
    the sides within STORED_SHORTER_SIDE and STORED_LONGER_SIDE.

    Holds one frame at a time, for long videos, or one for each of `threads` that compress them while the next ones are
    decoded; 0 compresses in this one.
    """
    bars = BlackBars()
    sizes: list[int] = []
    with tempfile.SpooledTemporaryFile(_WAITING_BYTES) as waiting:
        with closing(_mapped(_waiting_frame, _sized(frames), threads)) as compressed:
            for image, jpeg in compressed:
                bars.add(image)
                sizes.append(waiting.write(jpeg))
        if not sizes:
            raise BadInput("no frame of its video can be decoded")
        rows, columns = bars.content()
        waiting.seek(0)
        kept = ((waiting.read(length), rows, columns) for length in sizes)
        with closing(_mapped(_stored_frame, kept, threads)) as trimmed:
            return list(trimmed)


def _mapped(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Generator[Result, None, None]:
    if threads:
        yield from work_ahead(items, function, threads=threads)
    else:
        yield from map(function, items)


def _sized(frames: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """Each frame with the size that all of them wait in: that of the first."""
    size: tuple[int, int] | None = None
    for frame in frames:
        _check_frame(frame)
        size = size or waiting_size(frame.shape[0], frame.shape[1])
        yield frame, size


def _waiting_frame(sized: tuple[np.ndarray, tuple[int, int]]) -> tuple[np.ndarray, bytes]:
    frame, size = sized
    image = resize(frame, *size)
    return image, encode_jpeg(image, _WAITING_QUALITY)


def _check_frame(frame: object) -> None:
    """Raises TypeError unless a decoder's frame is what `Media.frames` promises."""
    if isinstance(frame, np.ndarray):
        if frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3 and frame.size:
            return
        got = f"{frame.dtype} {list(frame.shape)}"
    else:
        got = type(frame).__name__
    raise TypeError(f"a frame must be a uint8 array [height, width, 3]; the decoder returned {got}")


def _stored_frame(waiting: tuple[bytes, slice, slice]) -> bytes:
    jpeg, rows, columns = waiting
    image = decode_jpeg(jpeg)[rows, columns]
    size = bounded_size(image.shape[0], image.shape[1], STORED_SHORTER_SIDE, STORED_LONGER_SIDE)
    return encode_jpeg(resize(np.ascontiguousarray(image), *size))
