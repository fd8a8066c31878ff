"""DALI turns YCbCr into RGB by the matrix of BT.601, whatever the video says: the matrix that mends its RGB."""

from __future__ import annotations

import numpy as np

_BT601 = (0.299, 0.114)
_WEIGHTS = {
    1: (0.2126, 0.0722),  # BT.709
    2: _BT601,  # unspecified: FFmpeg's default, which PyAV follows
    4: (0.30, 0.11),  # FCC
    5: _BT601,  # BT.470 B and G
    6: _BT601,  # SMPTE 170M
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020, non-constant luminance
}
"""The weights of red and blue in luma, by the number that standards (and FFmpeg) give a matrix."""


def is_known(colorspace: int) -> bool:
    """Whether RGB can be mended for a video of this matrix."""
    return colorspace in _WEIGHTS


def mending_matrix(colorspace: int) -> np.ndarray | None:
    """float32 [3, 3]: DALI's RGB, times this, is the RGB that the video means. None if that is the same.

    Colours that DALI has clipped to 0 or 255 are lost; others are exact up to rounding.
    """
    weights = _WEIGHTS[colorspace]
    if weights == _BT601:
        return None
    return (_rgb_of_ycbcr(*weights) @ np.linalg.inv(_rgb_of_ycbcr(*_BT601))).astype(np.float32)


def _rgb_of_ycbcr(red: float, blue: float) -> np.ndarray:
    """RGB of luma in [0, 1] and colour differences in [-0.5, 0.5]."""
    green = 1 - red - blue
    return np.array(
        [
            [1, 0, 2 * (1 - red)],
            [1, -2 * blue * (1 - blue) / green, -2 * red * (1 - red) / green],
            [1, 2 * (1 - blue), 0],
        ]
    )
