"""What a stored frame shows, in a form that survives another encoding: a thumbnail and a perceptual hash of 64 bits."""

from __future__ import annotations

import numpy as np

from reserve.data.images import decode_thumbnail

THUMBNAIL_SIDE = 32
SAME_BLOCK = 8
"""Largest difference of brightness, of 255, between two blocks of a thumbnail that show the same."""
CHANGED_BLOCKS = 5
"""Blocks of the 1024 that may differ between two thumbnails of the same picture."""
_FREQUENCIES = 8
# Of the coefficients of an orthonormal transform. Those of an even picture are noise, and must not decide a bit.
_DEAD_ZONE = 8
# Standard deviation of the brightness below which a picture has no structure to hash.
_FLAT = 3
_LEVELS = 21
# Steps of brightness, blueness and redness of a picture with structure. Grey lies between two.
_COLOURS = np.array([[51, 102, 153, 204], [104, 120, 136, 152], [104, 120, 136, 152]])
_SCALE = 1 << 12


def thumbnail(jpeg: bytes) -> np.ndarray:
    """A stored frame as uint8 YCbCr [32, 32, 3]. Raises BadInput if it is not a complete JPEG."""
    return decode_thumbnail(jpeg, THUMBNAIL_SIDE)


def is_same_picture(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two thumbnails show the same picture: all but CHANGED_BLOCKS blocks have the same brightness.

    Means over blocks hardly change with grain or another encoding, and do where a face moves.
    """
    difference = np.abs(a[..., 0].astype(np.int16) - b[..., 0].astype(np.int16))
    return int(np.count_nonzero(difference > SAME_BLOCK)) <= CHANGED_BLOCKS


def picture_hash(small: np.ndarray) -> int:
    """64 bits of a thumbnail, of which few differ between two encodings, sizes or narrow crops of a picture.

    Of a picture with structure, the signs of its 51 lowest frequencies (Zauner 2010), and 12 bits of its brightness and
    colour. Of a flat one, these in more detail. Computed in integers, so that any machine gets the same bits.
    """
    luma = small[..., 0].astype(np.int64)
    if luma.var() < _FLAT**2:
        return _flat_hash(small)
    coefficients = (_COSINES @ luma @ _COSINES.T).ravel()[_LOWEST]
    means = small.reshape(-1, 3).astype(np.int64).sum(axis=0)
    colour = means[:, None] > _COLOURS * THUMBNAIL_SIDE**2
    return _as_int(np.concatenate([coefficients > _DEAD_ZONE * _SCALE**2, colour.ravel()]))


def _flat_hash(small: np.ndarray) -> int:
    """Three thermometers of 21 levels below a bit that no other hash has: neighbouring levels differ in one bit."""
    levels = (small.reshape(-1, 3).astype(np.int64).sum(axis=0) * (_LEVELS + 1)) // (256 * THUMBNAIL_SIDE**2)
    return 1 << 63 | _as_int(np.arange(_LEVELS) < levels[:, None])


def _as_int(bits: np.ndarray) -> int:
    return int.from_bytes(np.packbits(bits.ravel(), bitorder="little").tobytes(), "little")


def _cosines() -> np.ndarray:
    """The lowest frequencies of the orthonormal DCT-II in fixed point: int64 [8, 32]."""
    places = (np.arange(THUMBNAIL_SIDE) + 0.5) * np.pi / THUMBNAIL_SIDE
    waves = np.cos(np.arange(_FREQUENCIES)[:, None] * places) * np.sqrt(2 / THUMBNAIL_SIDE)
    waves[0] /= np.sqrt(2)
    return np.round(waves * _SCALE).astype(np.int64)


_COSINES = _cosines()
_LOWEST = sorted(range(1, _FREQUENCIES**2), key=lambda place: (sum(divmod(place, _FREQUENCIES)), place))[:51]
