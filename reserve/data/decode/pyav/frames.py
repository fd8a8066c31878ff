"""Frames at given times through PyAV, with a seek where that is shorter than decoding the frames between."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

import numpy as np

from reserve.data.decode.protocol import check_times
from reserve.data.decode.pyav.container import Container, decoding_failures
from reserve.data.decode.pyav.picture import StoredFrame, display_matrix, to_picture
from reserve.data.decode.pyav.timing import lacks_presentation_times, latest_timestamp
from reserve.errors import BadInput

# If a seek lands after its target, try again this many seconds earlier; after the last one, decode from the start.
_SEEK_BACK = (0.0, 2.0, 10.0, 60.0)


def read_frames(container: Container, times: Sequence[float]) -> Iterator[np.ndarray]:
    """See `Media.frames`."""
    check_times(times)
    reader = _FrameReader(container)
    for time in times:
        yield to_picture(reader.frame_at(time), container.limits)


def first_frame(container: Container) -> StoredFrame:
    """The first frame of the file that can be decoded. Raises BadInput if there is none."""
    return _FrameReader(container).frame_at(0.0)


class _FrameReader:
    """Walks a video stream forward; seeks where that is shorter than decoding the frames between."""

    def __init__(self, container: Container) -> None:
        self._container = container
        container.rewind()  # A codec that has decoded before may be at another pixel aspect than the file begins with.
        self._take_stream()
        self._current: StoredFrame | None = None
        self._next: StoredFrame | None = None
        self._decoded: Iterator[StoredFrame] = iter(())
        self._key_interval = 1.0

    def _take_stream(self) -> None:
        self._stream = self._container.video_stream()
        if self._stream.time_base is None:
            raise BadInput("its video has no time base")
        self._tick = float(self._stream.time_base)
        # FFmpeg's own limit, for streams that change their size midway.
        self._stream.codec_context.options = {"max_pixels": str(self._container.limits.max_pixels)}
        # The container's word counts before the codec's. Where they agree, the codec's may change midway, as broadcasts
        # do for a film in another format.
        self._aspect = self._stream.sample_aspect_ratio
        self._follows_codec = self._aspect == self._stream.codec_context.sample_aspect_ratio

    def frame_at(self, time: float) -> StoredFrame:
        target = latest_timestamp(time, self._container.origin, self._tick)
        if self._current is None or (
            self._can_seek and self._next_is_due(target) and target - self._seconds(self._current) > self._key_interval
        ):
            self._seek(target)
        while self._next_is_due(target):
            self._advance()
        if self._current is None:
            raise BadInput("no frame of its video can be decoded")
        return self._current

    def _seconds(self, stored: StoredFrame) -> float:
        frame = stored.frame
        timestamp = frame.pts if frame.pts is not None else frame.dts
        if timestamp is None:
            raise BadInput("its video frames have no timestamps")
        return timestamp * self._tick

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
        try:
            self._container.raw.seek(math.floor(start / self._tick), stream=self._stream, backward=True)
        except decoding_failures():
            return False
        self._start_decoding()
        return True

    def _start_decoding(self) -> None:
        self._decoded = self._decode()
        self._current = next(self._decoded, None)
        self._next = next(self._decoded, None)

    def _decode(self) -> Iterator[StoredFrame]:
        times: list[int] = []
        matrix = None
        for packet in self._container.demux(self._stream):
            if self._lacks_presentation_times and packet.size and packet.dts is not None:
                heappush(times, packet.dts)
            for frame in self._container.decode(packet):
                if times:
                    # Frames leave the decoder in the order of presentation, so each has the earliest time left.
                    frame.pts = heappop(times)
                # A matrix in the pictures themselves may come with key frames alone, and holds until the next one.
                own = display_matrix(frame)
                matrix = own if own is not None or frame.key_frame else matrix
                coded = self._stream.codec_context.sample_aspect_ratio if self._follows_codec else None
                yield StoredFrame(frame, coded or self._aspect, matrix)

    @property
    def _lacks_presentation_times(self) -> bool:
        return lacks_presentation_times(self._container, self._stream)

    @property
    def _can_seek(self) -> bool:
        return not (self._container.has_clock_breaks or self._lacks_presentation_times)
