"""Decoded frames to the picture a player shows: upright, with square pixels, in RGB."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from reserve.data.decode.protocol import MediaLimits
from reserve.data.decode.pyav.container import decoding_errors, import_av

if TYPE_CHECKING:
    import av

MAX_PIXEL_ASPECT = 4
"""Pixels more than this times wider than high, or the reverse, are a damaged header and taken for square. Anamorphic
formats stay below 2.4; half-width stereo pairs have 2."""


@dataclass(frozen=True, slots=True)
class StoredFrame:
    """A decoded frame and how to show it: `pixel_aspect` is width : height of a pixel, None if unknown; `matrix` is its
    display matrix (see `display_matrix`)."""

    frame: av.VideoFrame
    pixel_aspect: Fraction | None = None
    matrix: np.ndarray | None = None


def to_picture(stored: StoredFrame, limits: MediaLimits) -> np.ndarray:
    """uint8 RGB [height, width, 3]."""
    frame = stored.frame
    limits.check_frame_size(frame.width, frame.height)
    width, height = square_size(frame.width, frame.height, stored.pixel_aspect)
    limits.check_frame_size(width, height)
    with decoding_errors("a frame cannot be converted to RGB"):
        image = frame.to_ndarray(format="rgb24", width=width, height=height)
    return np.ascontiguousarray(image if stored.matrix is None else displayed(image, stored.matrix))


def square_size(width: int, height: int, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Width and height with square pixels. The side that is too short grows, so that nothing is lost."""
    if not pixel_aspect or not 1 / MAX_PIXEL_ASPECT <= pixel_aspect <= MAX_PIXEL_ASPECT:
        return width, height
    if pixel_aspect > 1:
        return round(width * pixel_aspect), height
    return width, round(height / pixel_aspect)


def side_data(frame: av.VideoFrame) -> Any:
    """What comes with a frame, by type.

    `frame.side_data` makes a cycle of references: its pictures stay in memory until Python collects garbage, which it
    does by the number of objects, whatever their size.
    """
    return import_av().sidedata.sidedata.SideDataContainer(frame)


def display_matrix(frame: av.VideoFrame) -> np.ndarray | None:
    """int32 [3, 3]: the position (x, y, 1) of a stored pixel, times this, is where it is shown. None without one."""
    found = side_data(frame)
    if not len(found):
        return None
    data = found.get(import_av().sidedata.sidedata.Type.DISPLAYMATRIX)
    return None if data is None else np.frombuffer(bytes(data), dtype=np.int32).reshape(3, 3)


def displayed(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """`image` [height, width, 3] turned and mirrored by the nearest of the eight ways that keep its sides upright."""
    (a, b), (c, d) = matrix[:2, :2].astype(np.int64).tolist()
    if abs(a) + abs(d) < abs(b) + abs(c):
        # x is shown along y and y along x.
        image, a, d = image.transpose(1, 0, 2), c, b
    if a < 0:
        image = image[:, ::-1]
    if d < 0:
        image = image[::-1]
    return image
