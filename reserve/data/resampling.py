"""Resizing of float pictures with the filters that the reference draws from while finetuning (SPEC 10.4).

Each filter is a matrix of weights along each axis: half-pixel centres, weights that sum to 1, and a support widened by
the factor of shrinking, which keeps fine detail from turning into noise. Pillow, which works on bytes, rounds twice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

Kernel = Callable[[np.ndarray], np.ndarray]


def resample(image: np.ndarray, height: int, width: int, method: str = "bilinear") -> np.ndarray:
    """float32 [h, w, channels] to float32 [height, width, channels] by one of METHODS.

    Filters with negative lobes overshoot; nothing is clipped here.
    """
    h, w, channels = image.shape
    if (h, w) == (height, width):
        return image
    rows = weights(h, height, method) @ image.reshape(h, w * channels)
    columns = rows.reshape(height, w, channels).swapaxes(0, 1).reshape(w, height * channels)
    resized = weights(w, width, method) @ columns
    return np.ascontiguousarray(resized.reshape(width, height, channels).swapaxes(0, 1))


@lru_cache(maxsize=64)
def weights(size: int, resized: int, method: str) -> np.ndarray:
    """What each of `size` pixels gives each of `resized`: float32 [resized, size]. Raises ValueError for the method."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}; got {method!r}")
    matrix = METHODS[method](size, resized).astype(np.float32)
    matrix.flags.writeable = False
    return matrix


def _nearest(size: int, resized: int) -> np.ndarray:
    index = np.floor((np.arange(resized) + 0.5) * (size / resized)).astype(int)
    return np.eye(size)[np.minimum(index, size - 1)]


def _area(size: int, resized: int) -> np.ndarray:
    """Each new pixel is the mean of what it covers, the pixels at its ends by the part that it covers of them."""
    edges = np.arange(resized + 1) * (size / resized)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(size)
    covered = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None)
    return covered / covered.sum(1, keepdims=True)


def _filtered(kernel: Kernel, radius: float) -> Callable[[int, int], np.ndarray]:
    """A filter that is 0 beyond `radius`, in units of the coarser pixels of old and new picture."""

    def matrix(size: int, resized: int) -> np.ndarray:
        step = size / resized
        centre = (np.arange(resized)[:, None] + 0.5) * step
        distance = np.abs(np.arange(size) + 0.5 - centre) / max(step, 1.0)
        values = np.where(distance <= radius, kernel(distance), 0.0)
        return values / values.sum(1, keepdims=True)

    return matrix


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.clip(1 - x, 0, None)


def _gaussian(x: np.ndarray) -> np.ndarray:
    return np.exp(-2 * x**2)  # a standard deviation of half a pixel


def _cubic(b: float, c: float) -> Kernel:
    """Mitchell's and Netravali's family of cubic filters."""

    def kernel(x: np.ndarray) -> np.ndarray:
        near = ((12 - 9 * b - 6 * c) * x**3 + (-18 + 12 * b + 6 * c) * x**2 + (6 - 2 * b)) / 6
        far = ((-b - 6 * c) * x**3 + (6 * b + 30 * c) * x**2 + (-12 * b - 48 * c) * x + (8 * b + 24 * c)) / 6
        return np.where(x < 1, near, far)

    return kernel


def _lanczos(radius: float) -> Kernel:
    return lambda x: np.sinc(x) * np.sinc(x / radius)


METHODS: dict[str, Callable[[int, int], np.ndarray]] = {
    "area": _area,
    "bicubic": _filtered(_cubic(0.0, 0.5), 2),
    "bilinear": _filtered(_triangle, 1),
    "gaussian": _filtered(_gaussian, 1.5),
    "lanczos3": _filtered(_lanczos(3), 3),
    "lanczos5": _filtered(_lanczos(5), 5),
    "mitchellcubic": _filtered(_cubic(1 / 3, 1 / 3), 2),
    "nearest": _nearest,
}
"""By name, in alphabetical order."""
