"""A table of a video's timestamps and key frames, from one pass over its packets without decoding.

It answers what a decoder that counts frames needs: from which key frame to decode for the picture on screen at a time,
and which picture that is, counted from the key frame in the order of presentation. It works for variable frame rates
and pictures that are coded out of order. A file in which the answer would be a guess raises Unsuited.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reserve.data.decode.protocol import check_times
from reserve.data.decode.pyav.bitstream import READABLE, REORDERED, reader_of
from reserve.data.decode.pyav.container import Container
from reserve.data.decode.pyav.timing import lacks_presentation_times, latest_timestamp
from reserve.errors import BadInput, Unsuited

_LEADING_SECONDS = 1.0
"""Pictures that are shown before a key frame may be coded after it, for at most so long."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the stream that decodes alone: `packets` from the key frame with timestamp `pts` (ticks) on, without
    those that are shown before it, of `bytes` in all. `numbers` are the pictures wanted, counted in the order of
    presentation, in the order of their times."""

    pts: int
    packets: int
    numbers: tuple[int, ...]
    bytes: int


@dataclass(frozen=True, slots=True)
class FrameTable:
    """The packets of a video stream in the order of decoding: `pts` in ticks (int64), whether decoding can begin there
    (`keys`), whether the picture is in the stream's pictures (`counted`) and ever on screen (`shown`: an edit list may
    cut it off), and `sizes` in bytes. `repeats`: pictures are shown again without being coded again. Pictures after
    `limit` seconds may be missing."""

    pts: np.ndarray
    keys: np.ndarray
    counted: np.ndarray
    shown: np.ndarray
    sizes: np.ndarray
    origin: float
    tick: float
    repeats: bool
    limit: float

    def pieces(self, times: Sequence[float], most: int) -> tuple[Piece, ...]:
        """The pieces with the pictures on screen at `times`, as `Media.frames` defines them: at most `most` different
        ones in a piece.

        All pictures after one key frame share a piece, since decoding up to the last of them passes the others.
        """
        check_times(times)
        if any(time > self.limit for time in times):
            raise Unsuited("a time after the limit of its duration")
        order = np.flatnonzero(self.shown)
        order = order[np.argsort(self.pts[order], kind="stable")]
        seconds = self.pts[order] * self.tick
        targets = [latest_timestamp(time, self.origin, self.tick) for time in times]
        wanted = order[np.maximum(np.searchsorted(seconds, targets, side="right") - 1, 0)]
        groups: list[tuple[int, list[int]]] = []
        for place in wanted.tolist():
            key = self._key_of(place)
            if not groups or groups[-1][0] != key or (place not in groups[-1][1] and len(set(groups[-1][1])) >= most):
                groups.append((key, []))
            groups[-1][1].append(place)
        return tuple(self._piece(key, places) for key, places in groups)

    def _key_of(self, place: int) -> int:
        """The last key frame that is decoded and shown no later than a picture."""
        keys = np.flatnonzero(self.keys[: place + 1] & (self.pts[: place + 1] <= self.pts[place]))
        if not len(keys):
            raise Unsuited("its first pictures need earlier ones")
        return int(keys[-1])

    def _piece(self, key: int, places: Sequence[int]) -> Piece:
        inside = np.arange(key, max(places) + 1)
        inside = inside[self.pts[inside] >= self.pts[key]]
        counted = inside[self.counted[inside]]
        ranks = np.empty(len(counted), dtype=np.int64)
        ranks[np.argsort(self.pts[counted], kind="stable")] = np.arange(len(counted))
        numbers = dict(zip(counted.tolist(), ranks.tolist(), strict=True))
        return Piece(
            pts=int(self.pts[key]),
            packets=len(inside),
            numbers=tuple(numbers[place] for place in places),
            bytes=int(self.sizes[inside].sum()),
        )


def frame_table(container: Container) -> FrameTable:
    """The table of the main video stream. Raises BadInput if it has no pictures, Unsuited if it cannot be relied on."""
    container.rewind()
    stream = container.video_stream()
    codec = stream.codec_context
    name = codec.codec.canonical_name
    if name not in READABLE:
        raise Unsuited(f"no table of frames for {name}")
    if container.has_clock_breaks:
        raise Unsuited("its clock breaks")
    if lacks_presentation_times(container, stream):
        raise Unsuited("its container has no presentation times")
    if stream.time_base is None:
        raise BadInput("its video has no time base")
    describe = reader_of(name, codec.extradata or b"")
    stamps, flags, sizes = array("q"), array("B"), array("q")
    layouts: set[bytes] = set()
    repeats = False
    limit = container.limits.max_duration
    for packet in container.demux(stream):
        if not packet.size:
            continue
        if packet.is_corrupt:
            raise Unsuited("its packets are damaged")
        if packet.has_sidedata("new_extradata"):
            raise Unsuited("its format changes midway")
        pts = packet.dts if packet.pts is None and name not in REORDERED else packet.pts
        if pts is None:
            raise Unsuited("its video packets have no timestamps")
        picture = describe(memoryview(packet), packet.is_keyframe)
        repeats |= picture.repeats
        layouts.add(picture.layout)
        if len(layouts - {b""}) > 1:
            raise Unsuited("its format changes midway")
        stamps.append(pts)
        flags.append(picture.begins | picture.shown << 1 | (picture.shown and not packet.is_discard) << 2)
        sizes.append(packet.size)
        if picture.begins and pts * float(stream.time_base) - container.origin > limit + _LEADING_SECONDS:
            break
    bits = np.array(flags, dtype=np.uint8)
    keys, counted, shown = (bits & bit != 0 for bit in (1, 2, 4))
    if not shown.any():
        raise BadInput("no frame of its video can be decoded")
    pts_of, size_of = np.array(stamps, dtype=np.int64), np.array(sizes, dtype=np.int64)
    table = FrameTable(pts_of, keys, counted, shown, size_of, container.origin, float(stream.time_base), repeats, limit)
    _check_order(table, name)
    return table


def _check_order(table: FrameTable, codec: str) -> None:
    """Raises Unsuited where the order of the timestamps is not that in which a decoder returns the pictures."""
    if not table.keys[0]:
        raise Unsuited("it does not begin with a key frame")
    if codec not in REORDERED:
        if (np.diff(table.pts[table.counted]) < 0).any():
            raise Unsuited("its timestamps go back")
        return
    latest = np.maximum.accumulate(table.pts)
    later_keys = np.flatnonzero(table.keys)[1:]
    if (latest[later_keys - 1] >= table.pts[later_keys]).any() or len(np.unique(table.pts)) != len(table.pts):
        raise Unsuited("its timestamps go back")
