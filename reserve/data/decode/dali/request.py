"""What DALI is asked for a file: the pieces to decode, and how to show their pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from reserve.data.decode.dali.colour import is_known, mending_matrix
from reserve.data.decode.dali.pipeline import Device, Variant
from reserve.data.decode.protocol import Deadline, FrameRequest, MediaLimits, VideoTrack, check_times
from reserve.data.decode.pyav.container import Container
from reserve.data.decode.pyav.frames import first_frame
from reserve.data.decode.pyav.index import FrameTable, Piece, frame_table
from reserve.data.decode.pyav.picture import displayed, square_size, to_picture
from reserve.data.images import waiting_size
from reserve.errors import Unsuited

MAX_PIECE_BYTES = 2**28
"""A longer piece is refused: its file has too few key frames."""
_FULL_RANGE = 2
"""FFmpeg's number for luma from 0 to 255."""
CLIP_BYTES = 2**26
"""Pixels of the frames of a clip, before scaling; a clip has at least one frame."""


@dataclass(frozen=True, slots=True)
class Look:
    """How to show a file's pictures: their `stored` size (height, width), the `size` to scale them to, the matrix for
    their colours, and the display matrix, as in `StoredFrame`."""

    stored: tuple[int, int]
    size: tuple[int, int]
    colours: np.ndarray | None
    display: np.ndarray | None

    def picture(self, image: np.ndarray) -> np.ndarray:
        """A picture [height, width, 3] upright."""
        return np.ascontiguousarray(image if self.display is None else displayed(image, self.display))


@dataclass(frozen=True)
class ClipRequest(FrameRequest):
    """A request with the `pieces` that hold its frames, in order, their `codec`, and where to decode them."""

    pieces: tuple[Piece, ...]
    look: Look
    codec: str
    device: Device

    @property
    def variant(self) -> Variant:
        return Variant(self.device, self.look.size != self.look.stored, self.look.colours is not None)

    def pixel_bytes(self, piece: Piece) -> int:
        """Bytes of a piece's frames as DALI decodes them."""
        return len(piece.numbers) * self.look.stored[0] * self.look.stored[1] * 3


@dataclass(frozen=True, slots=True)
class Stream:
    """What a video stream is, as its packets and its first picture say. `hides`: some pictures are never shown;
    `repeats`: some are shown again without being coded again."""

    track: VideoTrack
    hides: bool
    repeats: bool
    is_interlaced: bool
    is_full_range: bool


def make_request(
    path: Path, times: Sequence[float], limits: MediaLimits, choose_device: Callable[[Stream], Device]
) -> ClipRequest:
    """The request for the frames of a file. `choose_device` says where to decode a stream, or raises Unsuited.

    Raises BadInput if the file cannot be used, Unsuited if another decoder should take it.
    """
    check_times(times)
    container = Container(path, limits, Deadline(limits.max_decode_seconds))
    try:
        table = frame_table(container)
        first = first_frame(container)
        to_picture(first, limits)  # its checks of the size
        frame = first.frame
        stream = _stream(container, table, frame)
        device = choose_device(stream)
        if not is_known(int(frame.colorspace)):
            raise Unsuited(f"colours by matrix {int(frame.colorspace)}")
        stored = (frame.height, frame.width)
        width, height = square_size(frame.width, frame.height, first.pixel_aspect)
        pieces = table.pieces(times, max(CLIP_BYTES // (stored[0] * stored[1] * 3), 1))
        if any(piece.bytes > MAX_PIECE_BYTES for piece in pieces):
            raise Unsuited(f"more than {MAX_PIECE_BYTES >> 20} MiB from one key frame to a picture")
        return ClipRequest(
            path,
            tuple(times),
            limits,
            pieces,
            Look(stored, waiting_size(height, width), mending_matrix(int(frame.colorspace)), first.matrix),
            stream.track.codec,
            device,
        )
    finally:
        container.close()


def _stream(container: Container, table: FrameTable, first: Any) -> Stream:
    """`first` is the first frame, which knows better than the headers what is in it."""
    track = container.info.video
    assert track is not None
    return Stream(
        track=replace(track, width=first.width, height=first.height, pixel_format=first.format.name),
        hides=not table.counted.all(),
        repeats=table.repeats,
        is_interlaced=first.interlaced_frame or container.video_stream().codec_context.field_order > 1,
        is_full_range=int(first.color_range) == _FULL_RANGE,
    )
