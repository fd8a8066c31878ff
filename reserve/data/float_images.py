"""Pictures of the downstream tasks: stored, and turned into the model's float32 input (SPEC 10.4)."""

from __future__ import annotations

import numpy as np

from reserve.data.images import encode_jpeg, resize
from reserve.data.resampling import METHODS, resample

STORED_SHORTER = 450
STORED_LONGER = 800
"""Bounds of a stored picture's sides in pixels; see `stored_size`."""
STORED_QUALITY = 95
_EDGE = np.float32(0.5)
_EDGE_WIDTH = 4
_MIN_SCALED_SIDE = 64


def stored_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of a picture as it is stored: the shorter side 450 pixels, or less so that the longer is at most
    800. Like the reference, pictures whose shorter side is at most 450 are left alone, however long the other."""
    shorter, longer = sorted((height, width))
    if shorter <= STORED_SHORTER:
        return height, width
    target = min(STORED_SHORTER, round(STORED_LONGER * shorter / longer))
    return (target, int(target * width / height)) if height < width else (int(target * height / width), target)


def stored_picture(image: np.ndarray) -> bytes:
    """A picture uint8 [h, w, 3] as the JPEG file that is stored of it, within STORED_SHORTER and STORED_LONGER."""
    return encode_jpeg(resize(image, *stored_size(*image.shape[:2])), STORED_QUALITY)


def finetuning_image(
    image: np.ndarray,
    size: tuple[int, int],
    *,
    rng: np.random.Generator | None = None,
    scale_range: tuple[float, float] = (1.0, 1.1),
) -> np.ndarray:
    """A picture, uint8 [h, w, 3], as finetuning sees it: float32 [*size, 3] in [0, 1].

    Portrait pictures (height at least 4/3 of width) are turned by 90° counter-clockwise and get grey edges of 4 pixels
    left and right. Without `rng`, as in validation, the picture is resized to fit `size` and padded with 0 at the
    bottom and right. With it, it is resized by a random method to fit `size` times a scale from U(`scale_range`), and
    cropped at random.
    """
    pixels = _floating(image)
    if image.shape[0] >= 4 * image.shape[1] / 3:
        edges = ((0, 0), (_EDGE_WIDTH, _EDGE_WIDTH), (0, 0))
        pixels = np.pad(np.rot90(pixels), edges, constant_values=_EDGE)
    if rng is None:
        return _fit(_scaled(pixels, size, 0.0, "bilinear"), size)
    factor = rng.uniform(*scale_range)
    method = list(METHODS)[rng.integers(len(METHODS))]
    target = int(factor * size[0]), int(factor * size[1])
    scaled = _scaled(pixels, target, _MIN_SCALED_SIDE / min(pixels.shape[:2]), method)
    top, left = (int(rng.uniform() * max(have - want, 0)) for have, want in zip(scaled.shape, size, strict=False))
    return _fit(scaled[top:, left:], size)


def zero_shot_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A frame, uint8 [h, w, 3], resized to fit `size` and padded with 0 at the bottom and right: float32 [*size, 3].

    Trim black bars first, over all frames of the video. Unlike in training, portrait frames are not turned.
    """
    return _fit(_scaled(_floating(image), size, 0.0, "bilinear"), size)


def _floating(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) / np.float32(255)


def _scaled(pixels: np.ndarray, target: tuple[int, int], least: float, method: str) -> np.ndarray:
    """Resized to fit `target`, or by the factor `least` if that is larger. Sizes are computed in float32, as the
    reference does."""
    h, w = (np.float32(side) for side in pixels.shape[:2])
    scale = max(min(np.float32(target[0]) / h, np.float32(target[1]) / w), np.float32(least))
    return resample(pixels, max(int(h * scale), 1), max(int(w * scale), 1), method).clip(0, 1)


def _fit(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The top left of `image`, cropped or padded with 0 to `size`."""
    fitted = np.zeros((*size, 3), dtype=np.float32)
    part = image[: size[0], : size[1]]
    fitted[: part.shape[0], : part.shape[1]] = part
    return fitted
