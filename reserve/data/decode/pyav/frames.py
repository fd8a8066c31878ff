"""Frames at given times through PyAV, with a seek where that is shorter than decoding the frames between."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import numpy as np

from reserve.data.decode.protocol import check_times
from reserve.data.decode.pyav.container import Container
from reserve.data.decode.pyav.picture import StoredFrame, display_matrix, to_picture
from reserve.data.decode.pyav.timing import lacks_presentation_times, latest_timestamp
from reserve.errors import BadInput

if TYPE_CHECKING:
    import av

# If a seek lands after its target, try again this many seconds earlier; after the last one, decode from the start.
_SEEK_BACK = (0.0, 2.0, 10.0, 60.0)
# Pictures closer than this many frames before a target are never skipped.
_MARGIN_FRAMES = 3


def read_frames(container: Container, times: Sequence[float]) -> Iterator[np.ndarray]:
    """See `Media.frames`."""
    check_times(times)
    reader = _FrameReader(container)
    try:
        for time in times:
            yield to_picture(reader.frame_at(time), container.limits)
    finally:
        reader.close()


def first_frame(container: Container) -> StoredFrame:
    """The first frame of the file that can be decoded. Raises BadInput if there is none."""
    reader = _FrameReader(container)
    try:
        return reader.frame_at(0.0)
    finally:
        reader.close()


class _FrameReader:
    """Walks a video stream forward; seeks where that is shorter than decoding the frames between.

    On the way to a target, H.264 pictures that no other refers to are not decoded. HEVC's marks would not do: a picture
    without references in its own temporal layer may have some in others.
    """

    def __init__(self, container: Container) -> None:
        self._container = container
        container.rewind()  # A codec that has decoded before may be at another pixel aspect than the file begins with.
        self._take_stream()
        codec, rate = self._stream.codec_context, self._stream.average_rate
        self._may_skip = codec.name == "h264" and bool(rate) and not self._lacks_presentation_times
        self._margin = _MARGIN_FRAMES / float(rate) if rate else 0.0
        self._needed = -math.inf
        """Pictures before this timestamp are only decoded for others."""
        self._last_skipped = -math.inf
        """The latest timestamp of which the picture may have been skipped."""
        self._current: StoredFrame | None = None
        self._next: StoredFrame | None = None
        self._decoded: Iterator[StoredFrame] = iter(())
        self._key_interval = 1.0

    def _take_stream(self) -> None:
        self._stream = self._container.video_stream()
        if self._stream.time_base is None:
            raise BadInput("its video has no time base")
        self._tick = float(self._stream.time_base)
        codec = self._stream.codec_context
        # FFmpeg's own limit, for streams that change their size midway.
        codec.options = {"max_pixels": str(self._container.limits.max_pixels)}
        # Threads that share a picture cost a third more than one thread, and preparation has a process for each core.
        codec.thread_count = 1
        # The container's word counts before the codec's. Where they agree, the codec's may change midway, as broadcasts
        # do for a film in another format.
        self._aspect = self._stream.sample_aspect_ratio
        self._follows_codec = self._aspect == codec.sample_aspect_ratio

    def close(self) -> None:
        """Lets go of its pictures. The generator that decodes refers to the reader, and the reader to it."""
        self._current = self._next = None
        self._decoded = iter(())

    def frame_at(self, time: float) -> StoredFrame:
        target = latest_timestamp(time, self._container.origin, self._tick)
        self._needed = (target - self._margin) / self._tick
        self._walk(target)
        if self._may_skip and self._has_skipped_too_much():
            self._may_skip = False
            self._seek(target)
            self._walk(target)
        if self._current is None:
            raise BadInput("no frame of its video can be decoded")
        return self._current

    def _walk(self, target: float) -> None:
        """Sets `_current` to the frame on screen at `target`."""
        if self._current is None or (self._can_seek and self._next_is_due(target) and self._seek_is_shorter(target)):
            self._seek(target)
        while self._next_is_due(target):
            self._advance()

    def _seek_is_shorter(self, target: float) -> bool:
        """Whether there is a key frame between the current frame and `target`."""
        assert self._current is not None
        now = self._seconds(self._current)
        keys = self._stream.index_entries
        place = keys.search_timestamp(math.floor(target / self._tick)) if len(keys) else -1
        if place >= 0:
            if keys[place].timestamp * self._tick > now:
                return True
            if keys[len(keys) - 1].timestamp * self._tick > target:
                return False
        # Formats without an index, or with one that grows while they are read.
        return target - now > self._key_interval

    def _has_skipped_too_much(self) -> bool:
        """Whether the picture at the target may be among those that were skipped: frames are far apart there, or
        damaged. The fields of interlaced pictures may be marked each for itself."""
        if self._current is None:
            return True
        frame = self._current.frame
        return frame.interlaced_frame or self._timestamp(frame) < self._last_skipped

    def _seconds(self, stored: StoredFrame) -> float:
        return self._timestamp(stored.frame) * self._tick

    def _timestamp(self, frame: av.VideoFrame) -> int:
        """In ticks of the stream."""
        timestamp = frame.pts if frame.pts is not None else frame.dts
        if timestamp is None:
            raise BadInput("its video frames have no timestamps")
        return timestamp

    def _next_is_due(self, target: float) -> bool:
        return self._next is not None and self._seconds(self._next) <= target

    def _has_reached(self, target: float) -> bool:
        """Whether decoding has begun at or before the target."""
        return self._current is not None and self._seconds(self._current) <= target

    def _advance(self) -> None:
        self._current, self._next = self._next, next(self._decoded, None)

    def _seek(self, target: float) -> None:
        """Sets `_current` to a frame at or before `target`, or to the first of the file."""
        for back in _SEEK_BACK if self._can_seek else ():
            start = target - back
            if start > self._container.origin and self._start_from(start) and self._has_reached(target):
                break
        else:
            self._container.rewind()
            self._take_stream()
            self._start_decoding()
        if self._current is not None:
            # If key frames are further apart than the targets, decoding the frames between is shorter than a seek.
            self._key_interval = max(self._key_interval, target - self._seconds(self._current))

    def _start_from(self, start: float) -> bool:
        """Decodes from the key frame before `start`. Returns False if the format cannot seek there."""
        if not self._container.seek(math.floor(start / self._tick), self._stream):
            return False
        self._start_decoding()
        return True

    def _start_decoding(self) -> None:
        self._last_skipped = -math.inf
        self._decoded = self._decode()
        self._current = next(self._decoded, None)
        self._next = next(self._decoded, None)

    def _decode(self) -> Iterator[StoredFrame]:
        times: list[int] = []
        matrix = None
        codec = self._stream.codec_context
        codec.skip_frame = "DEFAULT"
        is_skipping = False
        lacks_times = self._lacks_presentation_times
        for packet in self._container.demux(self._stream):
            if lacks_times and packet.size and packet.dts is not None:
                heappush(times, packet.dts)
            skip = self._may_skip and packet.pts is not None and packet.pts < self._needed
            if skip:
                self._last_skipped = max(self._last_skipped, packet.pts)
            if skip is not is_skipping:
                codec.skip_frame, is_skipping = "NONREF" if skip else "DEFAULT", skip
            for frame in self._container.decode(packet):
                if times:
                    # Frames leave the decoder in the order of presentation, so each has the earliest time left.
                    frame.pts = heappop(times)
                # A matrix in the pictures themselves may come with key frames alone, and holds until the next one.
                own = display_matrix(frame)
                matrix = own if own is not None or frame.key_frame else matrix
                coded = codec.sample_aspect_ratio if self._follows_codec else None
                yield StoredFrame(frame, coded or self._aspect, matrix)

    @property
    def _lacks_presentation_times(self) -> bool:
        return lacks_presentation_times(self._container, self._stream)

    @property
    def _can_seek(self) -> bool:
        return not (self._container.has_clock_breaks or self._lacks_presentation_times)
