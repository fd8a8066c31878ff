"""The interface of a video decoder. It imports no decoding library.

A decoder is a `FileDecoder`, which opens one file at a time, or a `BatchDecoder`, which decodes the frames of several
files at once. Wherever a file is at fault, both raise BadInput with a reason that a user understands; preparation adds
the file's name.

All times are seconds on the file's presentation axis: 0 is where a player starts, the earliest timestamp of any stream
(or 0 if that is negative, since encoders use negative timestamps for priming).
"""

from __future__ import annotations

import math
import mmap
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from reserve.data.types import Cue
from reserve.errors import BadInput, DecodingTimeout


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """What decoding one file may cost: `max_pixels` per frame, `max_side` pixels, the first `max_duration` seconds (the
    rest is ignored), and `max_decode_seconds` of wall-clock time."""

    max_pixels: int = 8192 * 4608
    max_side: int = 16384
    max_duration: float = 2 * 3600.0
    max_decode_seconds: float = 600.0

    def check_frame_size(self, width: int, height: int) -> None:
        """Raises BadInput if frames of this size, in pixels, are empty or too large."""
        if min(width, height) < 1:
            raise BadInput("its video has no picture size")
        if width * height > self.max_pixels or max(width, height) > self.max_side:
            raise BadInput(
                f"frames of {width}x{height} pixels; at most {self.max_pixels} pixels and {self.max_side} a side "
                "are allowed"
            )


_PEAK_SAMPLES = 2**20


class Deadline:
    """A wall-clock limit of `seconds` from now, for long loops."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def check(self) -> None:
        """Raises DecodingTimeout, a BadInput, once the limit has passed."""
        if time.monotonic() > self._end:
            raise DecodingTimeout(f"decoding took more than {self.seconds:g} s")

    def expire(self) -> None:
        """Makes every later check raise, for work that nobody waits for any more."""
        self._end = -math.inf


@dataclass(frozen=True, slots=True)
class Track:
    """A stream of a file. `decodable` is False if the decoder lacks its codec."""

    decodable: bool = True


@dataclass(frozen=True, slots=True)
class LabelledTrack(Track):
    """A stream that the container describes: its `language` code and `title` (empty if none), whether players choose it
    by default, and whether it comments on the film."""

    language: str = ""
    title: str = ""
    is_default: bool = False
    is_comment: bool = False


@dataclass(frozen=True, slots=True)
class AudioTrack(LabelledTrack):
    """An audio stream, and whether it describes the pictures."""

    is_description: bool = False


@dataclass(frozen=True, slots=True)
class TextTrack(LabelledTrack):
    """A text stream: whether it has forced text only, describes sounds, or holds pictures of text."""

    is_forced: bool = False
    is_hearing_impaired: bool = False
    is_pictures: bool = False


@dataclass(frozen=True, slots=True)
class VideoTrack(Track):
    """A video stream. `width` and `height` are pixels as stored, before they are turned and made square; 0
    if unknown. `codec` and `pixel_format` are FFmpeg's names, such as h264 and yuv420p, `profile` is the codec's own,
    such as High 10; empty if unknown."""

    width: int = 0
    height: int = 0
    codec: str = ""
    profile: str = ""
    pixel_format: str = ""


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """The streams of a file as its headers describe them. `video` is the first one that is not a cover picture, the
    default one before others; `audio` and `text` tracks are in the container's order."""

    video: VideoTrack | None
    audio: tuple[AudioTrack, ...]
    text: tuple[TextTrack, ...]

    def check_video(self, limits: MediaLimits) -> None:
        """Raises BadInput if there is no video, or none that can be decoded within `limits`."""
        if self.video is None:
            raise BadInput("no video stream")
        if not self.video.decodable:
            raise BadInput("no decoder for its video stream")
        limits.check_frame_size(self.video.width, self.video.height)

    def check_audio(self, track: int) -> None:
        """Raises BadInput if there is no audio track `track`, counted from 0, or none that can be decoded."""
        if not self.audio:
            raise BadInput("no audio track")
        if not 0 <= track < len(self.audio):
            raise BadInput(f"no audio track {track}: it has {len(self.audio)}, counted from 0")
        if not self.audio[track].decodable:
            raise BadInput("no decoder for its audio track")

    def check_text(self, track: int) -> None:
        """Raises BadInput if there is no text track `track`, counted from 0, or none that can be decoded."""
        if not 0 <= track < len(self.text):
            raise BadInput(f"no text track {track}: it has {len(self.text)}, counted from 0")
        if self.text[track].is_pictures:
            raise BadInput("it holds pictures of text, which are not read")
        if not self.text[track].decodable:
            raise BadInput("no decoder for it")


@dataclass(frozen=True, slots=True)
class Soundtrack:
    """The sound of a whole file. `waveform` is float32 [samples] in about [-1, 1], sample i at i / `sample_rate`
    seconds, 0 where there is no sound. `media_end` is where the last packet of sound or picture ends, in seconds,
    whatever the container claims. The waveform of a long file lies on disk: `mapping` is its memory map."""

    waveform: np.ndarray
    sample_rate: int
    media_end: float
    mapping: mmap.mmap | None = None

    def peak(self) -> float:
        """The largest absolute value, at least that of the smallest 16-bit sample: a silent track stays silent (SPEC
        2)."""
        peak = 1 / 32768
        for first in range(0, len(self.waveform), _PEAK_SAMPLES):
            peak = max(peak, float(np.abs(self.waveform[first : first + _PEAK_SAMPLES]).max()))
            self.release()
        return peak

    def release(self) -> None:
        """Takes what has been read of a waveform on disk out of memory."""
        if self.mapping is not None:
            self.mapping.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True, slots=True)
class Fallback:
    """The name of the `decoder` that served instead of the one that was asked, and the `reason` as a short phrase."""

    decoder: str
    reason: str


class Media(ABC):
    """An open file; a context manager. Methods may be called in any order and more than once, but an iterator of
    `frames` is void once another method has been called."""

    @property
    @abstractmethod
    def info(self) -> MediaInfo:
        """The streams of the file. Decodes nothing."""

    @property
    def fallbacks(self) -> Mapping[str, Fallback]:
        """Who gave the latest `frames` ("pictures") or `soundtrack` ("sound") where the decoder's own library would
        have decoded otherwise than this interface says, or slower. Empty where that library did."""
        return {}

    @abstractmethod
    def duration(self) -> float:
        """Seconds until the last packet of sound or picture ends, at most `MediaLimits.max_duration`.

        Reads the whole file, since headers can be wrong, but decodes nothing.
        """

    @abstractmethod
    def frames(self, times: Sequence[float]) -> Iterator[np.ndarray]:
        """The frame on screen at each of `times` (seconds, finite, >= 0, non-decreasing): uint8 RGB [height, width, 3],
        upright and with square pixels.

        That is the last frame whose timestamp is at most the time, or the first frame if the time is before it. Times
        that a container rounds to a finer tick than a frame may be off by half of it.
        Raises BadInput as `MediaInfo.check_video` does or if no frame can be decoded, and ValueError for bad times.
        """

    @abstractmethod
    def soundtrack(self, *, track: int = 0, sample_rate: int = 22050) -> Soundtrack:
        """Audio track `track` from the start of the file, mixed to mono and resampled to `sample_rate` Hz.

        Sound before time 0 and after `MediaLimits.max_duration` is left out, gaps and late starts are silence, damaged
        packets are skipped. Raises BadInput as `MediaInfo.check_audio` does or if nothing can be decoded.
        """

    @abstractmethod
    def sound(self, start: float, stop: float, *, track: int = 0, sample_rate: int = 22050) -> np.ndarray:
        """The span from `start` to `stop` seconds of an audio track: float32 [round((stop - start) * sample_rate)].

        The samples are those of `soundtrack` up to the rounding of the file's timestamps, but only the span's
        surroundings are decoded if the format can seek. It is 0 where there is no sound.
        Raises BadInput as `MediaInfo.check_audio` does, and ValueError unless 0 <= start <= stop < inf.
        """

    @abstractmethod
    def cues(self, track: int) -> list[Cue]:
        """The captions of text track `track`, in the order of the file, with ASS overrides but without comments and
        drawings. Raises BadInput as `MediaInfo.check_text` does."""

    @abstractmethod
    def has_closed_captions(self) -> bool:
        """Whether the first pictures carry closed captions (CEA-608 or 708), which no decoder reads as text."""

    @abstractmethod
    def close(self) -> None:
        """Releases the file."""

    def __enter__(self) -> Media:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Decoder(ABC):
    """An implementation. `name` is what users choose it by."""

    name: str

    @abstractmethod
    def unavailable(self) -> str | None:
        """None if the decoder can run on this machine, otherwise the reason as a short phrase."""

    def slow_here(self) -> str | None:
        """Why "auto" passes the decoder over on a machine where it can run: it was measured to be slower than the ones
        after it, or was not measured. None if it was found faster. It can still be chosen by its name."""
        return None

    def by_name(self) -> Decoder:
        """The decoder for a user who asks for it: one that takes files which another only decodes faster."""
        return self

    def unsuited(self, info: MediaInfo) -> str | None:
        """None if the decoder is for a file of these streams, otherwise the reason as a short phrase.

        Asked only where the decoder can run. A file that it is not for goes to another decoder.
        """
        return None


class FileDecoder(Decoder):
    """Opens one file at a time. Preparation uses it in processes that can be killed, so objects must be picklable."""

    reads_ahead = False
    """Whether it reads a whole file before it decodes the first frame: not for a span of a long one."""

    @abstractmethod
    def open(self, path: str | Path, limits: MediaLimits | None = None, deadline: Deadline | None = None) -> Media:
        """Opens a file. `limits` default to MediaLimits(), `deadline` to its `max_decode_seconds` from now.

        Raises BadInput if the file cannot be opened as media. It must not follow references to other files, devices or
        URLs.
        """


@dataclass(frozen=True)
class FrameRequest:
    """The frames of `path` at `times`, as in `Media.frames`, within `limits`."""

    path: Path
    times: tuple[float, ...]
    limits: MediaLimits


class BatchDecoder(Decoder):
    """Decodes the frames of up to `batch_size` files at once, in a process of its own: a GPU. Sound and text of the
    files come from a FileDecoder. Objects must be picklable."""

    batch_size: int

    def request(self, media: Media, path: Path, times: Sequence[float], limits: MediaLimits) -> FrameRequest:
        """What `frames_of` will be asked for. Runs in the process that reads the file's sound and text, where `media`
        is open, and can find out whatever needs the whole file; the result is sent on and must be picklable.

        Raises Unsuited for a file that should go to another decoder, and BadInput for one that no decoder can use.
        """
        return FrameRequest(path, tuple(times), limits)

    @abstractmethod
    def frames_of(self, requests: Sequence[FrameRequest]) -> Iterator[Iterator[np.ndarray]]:
        """One iterator of frames for each request, in order, with the frames that `Media.frames` describes.

        The caller is done with an iterator before it asks for the next one, so frames need not be in memory all at
        once. An iterator raises BadInput if its own file is at fault; the next one must still work. Any other
        exception, and any that `frames_of` itself raises, ends the batch, and the caller decodes its remaining files
        one by one. The caller checks `max_decode_seconds` between frames, and ends the process if a call hangs.

        Frames may come scaled down, with antialiasing, to the size that `reserve.data.images.waiting_size` gives:
        preparation does the same.
        """


def check_times(times: Sequence[float]) -> None:
    """Raises ValueError unless `times` are what `Media.frames` takes."""
    for moment in times:
        if not 0 <= moment < float("inf"):
            raise ValueError(f"time must be finite and >= 0 seconds; got {moment}")
    if any(later < earlier for earlier, later in pairwise(times)):
        raise ValueError(f"times must not decrease; got {list(times)}")


def check_span(start: float, stop: float) -> None:
    """Raises ValueError unless `start` and `stop` are what `Media.sound` takes."""
    if not 0 <= start <= stop < float("inf"):
        raise ValueError(f"start and stop must be finite with 0 <= start <= stop, in seconds; got {start} and {stop}")
