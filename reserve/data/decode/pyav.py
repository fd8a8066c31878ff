"""Video files through PyAV: what is in them, and the frames at given times.

Times are seconds on the file's presentation axis: 0 is where a player starts, the earliest timestamp of any stream
(or 0 where that is negative, which encoders use for priming).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reserve.data.decode.deadline import Deadline
from reserve.errors import BadInput
from reserve.fs import check_regular_file

if TYPE_CHECKING:
    import av

# Demuxers that open other files or devices named in their input, or render text: none of them is a video file.
_REFUSED_FORMATS = (
    "adf alias_pix alsa bin concat concatf dash data fbdev ffmetadata hls idf image2 imf kmsgrab lavfi rtp rtsp "
    "sap sdp smoothstreaming tty txd vapoursynth video4linux2 v4l2 webm_dash_manifest x11grab xbin"
)
_MAX_READ_ERRORS = 1000
# A seek that lands behind its target tries again these many seconds earlier, at last from the start.
_SEEK_BACK = (0.0, 2.0, 10.0, 60.0)


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """What a file may cost: `max_pixels` a frame and `max_side` pixels, `max_duration` seconds of it that are looked
    at (the rest is ignored), `max_decode_seconds` of wall-clock time for all decoding of one file."""

    max_pixels: int = 8192 * 4608
    max_side: int = 16384
    max_duration: float = 2 * 3600.0
    max_decode_seconds: float = 600.0


def import_av() -> Any:
    """The module `av`, or an error naming the extra to install."""
    try:
        import av
        import av.logging
    except ImportError as error:
        raise ImportError("decoding video needs PyAV: pip install 'merlot-reserve[video]'") from error
    av.logging.set_level(None)
    return av


@cache
def _accepted_formats() -> str:
    names = {name for entry in import_av().formats_available for name in entry.split(",")}
    return ",".join(sorted(names.difference(_REFUSED_FORMATS.split())))


@cache
def decoding_failures() -> tuple[type[Exception], ...]:
    """What PyAV raises on bad files; LookupError is its answer to streams that appear midway."""
    own = import_av().FFmpegError
    return (own, OSError, ValueError, ArithmeticError, LookupError, RuntimeError, MemoryError, EOFError)


@contextmanager
def decoding_errors(doing: str) -> Iterator[None]:
    """Turns whatever PyAV raises on a bad file into BadInput saying what was being done."""
    try:
        yield
    except decoding_failures() as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise BadInput(f"{doing}: {reason}") from error


class MediaFile:
    """An open media file; a context manager. All methods raise BadInput where the file is at fault."""

    def __init__(self, path: str | Path, limits: MediaLimits | None = None, deadline: Deadline | None = None) -> None:
        self.path = Path(path)
        self.limits = limits or MediaLimits()
        self.deadline = deadline or Deadline(self.limits.max_decode_seconds)
        self._av = import_av()
        check_regular_file(self.path)
        self.container = self._open()

    def _open(self) -> av.container.InputContainer:
        self.deadline.check()
        with decoding_errors("not a media file that can be decoded"):
            # Prefixed, so that no file name is taken for a URL; the whitelists keep a playlist from reaching others.
            return self._av.open(
                f"file:{self.path}",
                container_options={"format_whitelist": _accepted_formats(), "protocol_whitelist": "file"},
                # For the decoders that look into the streams while opening.
                options={"max_pixels": str(self.limits.max_pixels)},
                metadata_errors="replace",
                timeout=(self.limits.max_decode_seconds, self.limits.max_decode_seconds),
            )

    def __enter__(self) -> MediaFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    def rewind(self) -> None:
        """Goes back to the start, also in formats that cannot seek. Streams taken before are void."""
        self.container.close()
        self.container = self._open()

    @property
    def origin(self) -> float:
        """Timestamp in seconds that is time 0."""
        start = self.container.start_time
        return 0.0 if start is None else max(start / 1_000_000, 0.0)

    def video_stream(self) -> av.VideoStream:
        """The first video stream that is not a cover picture, checked against the limits."""
        pictures = self._av.stream.Disposition.attached_pic | self._av.stream.Disposition.timed_thumbnails
        streams = [stream for stream in self.container.streams.video if not stream.disposition & pictures]
        if not streams:
            raise BadInput("no video stream")
        stream = streams[0]
        if stream.codec_context is None:
            raise BadInput("no decoder for its video stream")
        self._check_size(stream.codec_context.width, stream.codec_context.height)
        return stream

    def audio_stream(self, track: int = 0) -> av.AudioStream:
        """Audio track `track`, counted from 0 in the container's order."""
        streams = self.container.streams.audio
        if not streams:
            raise BadInput("no audio track")
        if not 0 <= track < len(streams):
            raise BadInput(f"no audio track {track}: it has {len(streams)}, counted from 0")
        if streams[track].codec_context is None:
            raise BadInput("no decoder for its audio track")
        return streams[track]

    def _check_size(self, width: int, height: int) -> None:
        limits = self.limits
        if min(width, height) < 1:
            raise BadInput("its video has no picture size")
        if width * height > limits.max_pixels or max(width, height) > limits.max_side:
            raise BadInput(
                f"frames of {width}x{height} pixels; at most {limits.max_pixels} pixels and {limits.max_side} a side "
                "are allowed"
            )

    def frames(self, times: Sequence[float]) -> Iterator[np.ndarray]:
        """The frame on screen at each of `times` (seconds, non-decreasing): uint8 RGB [height, width, 3], upright.

        That is the last frame whose timestamp is at most the time, or the first frame of all before that one.
        """
        if any(later < earlier for earlier, later in pairwise(times)):
            raise ValueError(f"times must not decrease; got {list(times)}")
        reader = _FrameReader(self)
        for time in times:
            yield self._to_rgb(reader.frame_at(time))

    def _to_rgb(self, frame: av.VideoFrame) -> np.ndarray:
        self._check_size(frame.width, frame.height)
        with decoding_errors("a frame cannot be converted to RGB"):
            image = frame.to_ndarray(format="rgb24")
            quarter_turns = round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(image, quarter_turns))


class _FrameReader:
    """Walks a video stream forward, seeking where that is shorter than decoding on."""

    def __init__(self, media: MediaFile) -> None:
        self._media = media
        self._take_stream()
        self._current: av.VideoFrame | None = None
        self._next: av.VideoFrame | None = None
        self._decoded: Iterator[av.VideoFrame] = iter(())
        self._key_interval = 1.0

    def _take_stream(self) -> None:
        self._stream = self._media.video_stream()
        if self._stream.time_base is None:
            raise BadInput("its video has no time base")
        self._tick = float(self._stream.time_base)
        # FFmpeg's own guard, for streams that change their size midway.
        self._stream.codec_context.options = {"max_pixels": str(self._media.limits.max_pixels)}

    def frame_at(self, time: float) -> av.VideoFrame:
        if not math.isfinite(time) or time < 0:
            raise ValueError(f"time must be finite and >= 0 seconds; got {time}")
        # Half a tick of slack: a time computed from a frame's own timestamp must find that frame.
        target = time + self._media.origin + 0.5 * self._tick
        if self._current is None or (
            self._next_is_due(target) and target - self._seconds(self._current) > self._key_interval
        ):
            self._seek(target)
        while self._next_is_due(target):
            self._advance()
        if self._current is None:
            raise BadInput("no frame of its video can be decoded")
        return self._current

    def _seconds(self, frame: av.VideoFrame) -> float:
        timestamp = frame.pts if frame.pts is not None else frame.dts
        if timestamp is None:
            raise BadInput("its video frames have no timestamps")
        return timestamp * self._tick

    def _next_is_due(self, target: float) -> bool:
        return self._next is not None and self._seconds(self._next) <= target

    def _has_reached(self, target: float) -> bool:
        """Whether decoding has begun, and not behind the target."""
        return self._current is not None and self._seconds(self._current) <= target

    def _advance(self) -> None:
        self._current, self._next = self._next, next(self._decoded, None)

    def _seek(self, target: float) -> None:
        """Makes `_current` a frame at or before `target`, or the first of the file."""
        for back in _SEEK_BACK:
            start = target - back
            if start > self._media.origin and self._start_from(start) and self._has_reached(target):
                break
        else:
            self._media.rewind()
            self._take_stream()
            self._start_decoding()
        if self._current is not None:
            # Where key frames are further apart than the step between targets, decoding on is the shorter way.
            self._key_interval = max(self._key_interval, target - self._seconds(self._current))

    def _start_from(self, start: float) -> bool:
        """Decodes from the key frame before `start`; False where the format cannot seek there."""
        try:
            self._media.container.seek(math.floor(start / self._tick), stream=self._stream, backward=True)
        except decoding_failures():
            return False
        self._start_decoding()
        return True

    def _start_decoding(self) -> None:
        self._decoded = self._decode()
        self._current = next(self._decoded, None)
        self._next = next(self._decoded, None)

    def _decode(self) -> Iterator[av.VideoFrame]:
        for packet in demux(self._media, self._stream):
            yield from decode_packet(self._media, packet)


def demux(media: MediaFile, *streams: Any) -> Iterator[Any]:
    """Packets of `streams` from the current position on; a damaged stretch is skipped, a damaged end ends them."""
    module = import_av()
    packets = media.container.demux(*streams)
    errors = 0
    while True:
        media.deadline.check()
        try:
            packet = next(packets)
        except (StopIteration, module.EOFError):
            return
        except decoding_failures():
            errors += 1
            if errors > _MAX_READ_ERRORS:
                return
            packets = media.container.demux(*streams)
            continue
        yield packet


def decode_packet(media: MediaFile, packet: Any) -> list[Any]:
    """Frames of one packet; none where it is damaged."""
    media.deadline.check()
    try:
        return packet.decode()
    except decoding_failures():
        return []
