"""Cuts pieces of a video at key frames into files in memory, since DALI takes whole files and counts their frames.

The packets are copied, not decoded. A piece's frame i has the i-th timestamp, so its own timestamps cannot upset DALI.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from reserve.data.decode.protocol import Deadline
from reserve.data.decode.pyav.container import Container, decoding_errors, decoding_failures, import_av
from reserve.data.decode.pyav.index import Piece
from reserve.errors import BadInput

_FORMAT = "matroska"
"""The one container that holds every codec that DALI decodes."""
_TICK = Fraction(1, 1000)
_STEP = 10
"""Ticks from one frame of a piece to the next."""
_CHANGED = "its packets are not those that it was planned with"
# If a seek lands after its key frame, try again this many seconds earlier; after the last one, read from the start.
_SEEK_BACK = (0.0, 2.0, 10.0, 60.0)


class PieceCutter:
    """Cuts pieces of one open file, which it closes."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._packets: Iterator[Any] = iter(())

    def close(self) -> None:
        """Releases the file."""
        self._container.close()

    def cut(self, piece: Piece) -> np.ndarray:
        """The piece as a Matroska file: uint8 [bytes]. Raises BadInput if the video has changed since its planning."""
        self._container.deadline = Deadline(self._container.limits.max_decode_seconds)
        packets = [self._key_frame(piece)]
        while len(packets) < piece.packets:
            packet = self._next()
            if packet is None:
                raise BadInput(_CHANGED)
            if _timestamp(packet) >= piece.pts:
                packets.append(packet)
        if sum(packet.size for packet in packets) != piece.bytes:
            raise BadInput(_CHANGED)
        with decoding_errors("its packets cannot be copied"):
            return self._written(packets)

    def _next(self) -> Any | None:
        for packet in self._packets:
            if packet.size:
                return packet
        return None

    def _key_frame(self, piece: Piece) -> Any:
        stream = self._container.video_stream()
        for back in _SEEK_BACK:
            start = piece.pts - round(back / float(stream.time_base or _TICK))
            try:
                self._container.raw.seek(start, stream=stream, backward=True)
            except decoding_failures():
                continue
            self._packets = self._container.demux(stream)
            if (found := self._scan(piece)) is not None:
                return found
        self._container.rewind()
        self._packets = self._container.demux(self._container.video_stream())
        if (found := self._scan(piece)) is not None:
            return found
        raise BadInput(_CHANGED)

    def _scan(self, piece: Piece) -> Any | None:
        while (packet := self._next()) is not None:
            stamp = _timestamp(packet)
            if packet.is_keyframe and stamp >= piece.pts:
                return packet if stamp == piece.pts else None
        return None

    def _written(self, packets: list[Any]) -> np.ndarray:
        stamps = np.array([_timestamp(packet) for packet in packets])
        ranks = np.empty(len(packets), dtype=np.int64)
        ranks[np.argsort(stamps, kind="stable")] = np.arange(len(packets))
        # A picture is decoded no later than it is shown.
        delay = max(int((np.arange(len(packets)) - ranks).max()), 0)
        file = io.BytesIO()
        with import_av().open(file, "w", format=_FORMAT) as output:
            stream = output.add_stream_from_template(self._container.video_stream())
            for place, (packet, rank) in enumerate(zip(packets, ranks.tolist(), strict=True)):
                packet.stream = stream
                packet.time_base = _TICK
                packet.pts, packet.dts = (rank + delay) * _STEP, place * _STEP
                packet.duration = _STEP
                output.mux(packet)
        return np.frombuffer(file.getbuffer(), dtype=np.uint8)


def _timestamp(packet: Any) -> int:
    stamp = packet.pts if packet.pts is not None else packet.dts
    if stamp is None:
        raise BadInput("its video packets have no timestamps")
    return int(stamp)
