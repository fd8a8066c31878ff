"""Frames at given times through torchcodec, each checked to be the one that the file's packets name."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from reserve.data.decode.pyav.container import Container
from reserve.data.decode.pyav.picture import display_matrix, square_size
from reserve.data.decode.pyav.timing import latest_timestamp
from reserve.data.decode.torchcodec.library import Refused, import_torchcodec, refusals
from reserve.data.decode.torchcodec.packets import PacketTable

# Frames that may be decoded between two looks at the deadline.
_MAX_STEP = 250
# Beyond, torchcodec and PyAV convert to other colours.
_FULL_RANGE = 2
"""FFmpeg's number for luma from 0 to 255. torchcodec follows it in pixel formats that imply it alone."""
_MAX_BITS = 8


class FrameReader:
    """A file's pictures. Raises Refused, also after some frames, where torchcodec would give another picture.

    What changes midway in the pictures' own data is seen if it changes their size, not if it turns them or changes the
    shape of their pixels.
    """

    def __init__(self, container: Container, table: PacketTable) -> None:
        if table.problem is not None:
            raise Refused(table.problem)
        if not table.starts:
            raise Refused("its pictures have no packets")
        self._container, self._table = container, table
        order = sorted(range(len(table.starts)), key=table.starts.__getitem__)
        self._starts = [table.starts[place] for place in order]
        if any(later == earlier for earlier, later in zip(self._starts, self._starts[1:], strict=False)):
            raise Refused("some of its pictures have the same timestamp")
        self._keys = [number for number, place in enumerate(order) if table.keys[place]]
        if not self._keys or self._keys[0]:
            raise Refused("its pictures do not begin with a key frame")
        rotation, self._shape = _display(container)
        self._decoder = _open(container, container.video_stream().index, self._starts, self._keys)
        if (self._decoder.metadata.rotation or 0) % 360 != rotation:
            raise Refused("its pictures say otherwise than its container how they are turned")
        self._last = -1

    def read(self, times: Sequence[float]) -> Iterator[np.ndarray]:
        """See `Media.frames`."""
        before: tuple[int, np.ndarray] | None = None
        for time in times:
            index = self._index_at(time)
            if before is None or before[0] != index:
                before = index, self._frame(index)
                yield before[1]
            else:
                yield before[1].copy()

    def _index_at(self, time: float) -> int:
        """The number of the frame on screen at `time`, in the order of presentation."""
        if self._table.is_cut and time >= self._container.limits.max_duration - 1:
            raise Refused("a time after the limit of its duration")
        target = latest_timestamp(time, self._container.origin, self._table.tick)
        return max(bisect_right(self._starts, target / self._table.tick) - 1, 0)

    def _frame(self, index: int) -> np.ndarray:
        """uint8 RGB [height, width, 3]."""
        key = self._keys[bisect_right(self._keys, index) - 1]
        first = self._last if key <= self._last <= index else key
        for step in range(first + _MAX_STEP, index, _MAX_STEP):
            self._decode(step)
        return self._decode(index)

    def _decode(self, index: int) -> np.ndarray:
        self._container.deadline.check()
        with refusals("torchcodec cannot decode its pictures"):
            frame = self._decoder.get_frame_at(index)
        self._last = index
        if abs(frame.pts_seconds / self._table.tick - self._starts[index]) > 0.5:
            raise Refused("torchcodec finds another picture than its packets name")
        picture: np.ndarray = frame.data.numpy()
        if picture.dtype != np.uint8 or picture.shape != (*self._shape, 3):
            raise Refused("its pictures change their size midway")
        return picture


def _open(container: Container, index: int, starts: Sequence[int], keys: Sequence[int]) -> Any:
    """torchcodec on the video stream, with a table of its frames: its own would cost another pass over the file."""
    decoders = import_torchcodec()
    key_frames = set(keys)
    frames = ",".join(
        f'{{"pts":{start},"duration":1,"key_frame":{int(number in key_frames)}}}' for number, start in enumerate(starts)
    )
    with refusals("torchcodec cannot open its pictures"):
        return decoders.VideoDecoder(
            f"file:{container.path}",
            stream_index=index,
            dimension_order="NHWC",
            device="cpu",
            custom_frame_mappings=f'{{"frames":[{frames}]}}',
        )


def _display(container: Container) -> tuple[int, tuple[int, int]]:
    """How far the first frame is turned, in degrees counterclockwise, and its height and width then."""
    container.rewind()
    stream = container.video_stream()
    frame = next((each for packet in container.demux(stream) for each in container.decode(packet)), None)
    if frame is None:
        raise Refused("its first pictures cannot be decoded")
    container.limits.check_frame_size(frame.width, frame.height)
    if any(component.bits > _MAX_BITS for component in frame.format.components):
        raise Refused("its pictures have more than 8 bits a colour")
    if int(frame.color_range) == _FULL_RANGE and not frame.format.name.startswith("yuvj"):
        raise Refused("its colours have full range")
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    if square_size(frame.width, frame.height, aspect) != (frame.width, frame.height):
        raise Refused("its pixels are not square")
    matrix = display_matrix(frame)
    if matrix is None:
        return 0, (frame.height, frame.width)
    (a, b), (c, d) = matrix[:2, :2].tolist()
    if (a, b) != (d, -c) or (a == 0) == (b == 0):
        raise Refused("its pictures are mirrored or turned by no quarter of a circle")
    rotation = round(-math.degrees(math.atan2(b, a))) % 360
    return rotation, (frame.height, frame.width) if rotation % 180 == 0 else (frame.width, frame.height)
