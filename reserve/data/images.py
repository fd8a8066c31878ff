"""Frames: trimmed and stored as JPEG, then turned into the model's input (SPEC 1; SPEC 7 "Images")."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reserve.errors import BadInput
from reserve.fs import check_regular_file

if TYPE_CHECKING:
    from PIL import Image

STORED_SHORTER_SIDE = 288
STORED_LONGER_SIDE = 512
"""Upper bounds of a stored frame's sides in pixels (SPEC 1)."""
JPEG_QUALITY = 75
BLACK_BAR_THRESHOLD = 32
"""A pixel that reaches this value in any channel of any frame belongs to the picture, not to a bar."""
BLACK_BAR_LIMIT = 0.2
"""Largest share of a side that may be trimmed at either end."""
_MAX_SIDE = 8192
_MIN_SCALED_SIDE = 64
ROTATED_EDGE = 128
"""Grey that marks the edges of a rotated frame, in the reference 0.5 of [0, 1]."""
ROTATED_EDGE_WIDTH = 4
"""Pixels of it on each side."""


def bounded_size(height: int, width: int, shorter: int, longer: int) -> tuple[int, int]:
    """Height and width scaled down, aspect kept, until the shorter side is at most `shorter` and the longer `longer`
    pixels; never scaled up, never below 1."""
    scale = min(1.0, shorter / min(height, width), longer / max(height, width))
    return max(round(height * scale), 1), max(round(width * scale), 1)


def waiting_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of a frame until the black bars of its video are known: enough for any trimming of them."""
    keep = 1 - 2 * BLACK_BAR_LIMIT
    return bounded_size(height, width, round(STORED_SHORTER_SIDE / keep), round(STORED_LONGER_SIDE / keep))


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [h, w, 3] to uint8 [height, width, 3], bicubic with antialiasing."""
    from PIL import Image

    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def encode_jpeg(image: np.ndarray, quality: int = JPEG_QUALITY) -> bytes:
    """uint8 RGB [h, w, 3] as a JPEG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def decode_jpeg(data: bytes) -> np.ndarray:
    """Decodes a JPEG file to uint8 RGB [h, w, 3]. Raises BadInput if it is incomplete or larger than 8192 a side."""
    return np.asarray(decode_picture(data))


def decode_picture(data: bytes) -> Image.Image:
    """decode_jpeg, but returns a Pillow image in RGB, which can be resized without a copy."""
    with _opened_jpeg(data) as image:
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Height and width of a JPEG file, from its header alone. Raises BadInput as decode_jpeg does."""
    with _opened_jpeg(data) as image:
        return image.height, image.width


def decode_thumbnail(data: bytes, side: int) -> np.ndarray:
    """Decodes a JPEG file to uint8 YCbCr [side, side, 3], each value the mean over its part of the picture. Faster than
    decode_jpeg, since it does not decode details. Raises BadInput as decode_jpeg does."""
    from PIL import Image

    with _opened_jpeg(data) as image:
        image.draft("YCbCr", (side, side))
        return np.asarray(image.convert("YCbCr").resize((side, side), Image.Resampling.BOX))


@contextmanager
def _opened_jpeg(data: bytes) -> Iterator[Image.Image]:
    """A JPEG file whose size is checked and that is not decoded yet. Whatever fails inside raises BadInput."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            if max(image.size) > _MAX_SIDE:
                raise BadInput(f"a stored frame of {image.size[0]}x{image.size[1]} pixels; at most {_MAX_SIDE} a side")
            yield image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        # For data that it does not recognise, Pillow's message is the address of a buffer.
        reason = "" if isinstance(error, UnidentifiedImageError) else f": {error}"
        raise BadInput(f"a stored frame is not a complete JPEG{reason}") from error


def read_picture(path: Path) -> np.ndarray:
    """A JPEG or PNG file as uint8 RGB [h, w, 3]. Raises BadInput naming the file and what is wrong with it.

    Like the reference, it ignores the rotation that EXIF may ask for.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        check_regular_file(path)
        with Image.open(path, formats=["JPEG", "PNG"]) as image:
            if max(image.size) > _MAX_SIDE:
                raise BadInput(f"{image.size[0]}x{image.size[1]} pixels; at most {_MAX_SIDE} a side are allowed")
            if image.mode.startswith("I"):  # Pillow would clip it to white
                raise BadInput("16 bits a pixel; convert it to 8")
            return np.asarray(image.convert("RGB"))
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error
    except UnidentifiedImageError as error:
        raise BadInput(f"{path} is neither a JPEG nor a PNG file") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInput(f"{path} is not a complete picture: {error}") from error


class BlackBars:
    """Finds the bars that are black in all frames of a video. Frames are added one by one."""

    def __init__(self) -> None:
        self._brightest: np.ndarray | None = None

    def add(self, image: np.ndarray) -> None:
        """Adds a frame, uint8 [h, w, 3]. All frames must have the same size."""
        brightest = image.max(axis=-1)
        if self._brightest is None:
            self._brightest = brightest
        else:
            np.maximum(self._brightest, brightest, out=self._brightest)

    def content(self, *, trim_black: bool = False) -> tuple[slice, slice]:
        """The rows and columns that remain; at most BLACK_BAR_LIMIT of a side is trimmed at each end.

        Frames that are black all over stay whole, or with `trim_black` lose that limit at each end.
        """
        if self._brightest is None:
            raise ValueError("add a frame before asking for the content")
        rows, columns = self._brightest.max(axis=1), self._brightest.max(axis=0)
        return _content_range(rows, trim_black), _content_range(columns, trim_black)


def _content_range(brightest: np.ndarray, trim_black: bool) -> slice:
    length = len(brightest)
    indices = np.flatnonzero(brightest >= BLACK_BAR_THRESHOLD)
    if not len(indices):
        if not trim_black:
            return slice(0, length)
        indices = np.array([length // 2])
    first = min(int(indices[0]), int(length * BLACK_BAR_LIMIT))
    last = max(int(indices[-1]) + 1, int(length * (1 - BLACK_BAR_LIMIT)))
    return slice(first, last)


def trim_black_bars(frames: Sequence[np.ndarray], *, trim_black: bool = False) -> list[np.ndarray]:
    """`frames`, uint8 [h, w, 3] of one video and one size, without the bars that are black in all of them.

    `trim_black` is that of `BlackBars.content`; the reference has it on at inference.
    """
    bars = BlackBars()
    for frame in frames:
        bars.add(frame)
    return [frame[bars.content(trim_black=trim_black)] for frame in frames]


@dataclass(frozen=True, slots=True)
class InputPlan:
    """How a frame becomes the model's input: `turned` by 90° counter-clockwise with grey edges or not, then resized to
    `height` and `width` by a filter of Pillow (`resample`), then cropped from (`top`, `left`) on and padded."""

    turned: bool
    height: int
    width: int
    resample: int
    top: int = 0
    left: int = 0


def plan_training_image(
    height: int,
    width: int,
    size: tuple[int, int],
    rng: np.random.Generator,
    scale_range: tuple[float, float] = (1.05, 1.1),
) -> InputPlan:
    """Draws what `training_image` does with a frame of these sides."""
    turned = height >= 4 * width / 3
    if turned:
        height, width = width, height + 2 * ROTATED_EDGE_WIDTH
    factor = rng.uniform(*scale_range)
    scale = min(int(factor * size[0]) / height, int(factor * size[1]) / width)
    scale = max(scale, _MIN_SCALED_SIDE / min(height, width))
    resample = _training_filter(rng)
    scaled = _scaled(height, width, scale)
    top, left = (int(max(have - want, 0) * rng.uniform()) for have, want in zip(scaled, size, strict=True))
    return InputPlan(turned, *scaled, resample, top, left)


def plan_inference_image(height: int, width: int, size: tuple[int, int]) -> InputPlan:
    """What `inference_image` does with a frame of these sides."""
    from PIL import Image

    scale = min(size[0] / height, size[1] / width)
    return InputPlan(False, *_scaled(height, width, scale), Image.Resampling.BILINEAR)


def input_image(image: np.ndarray | Image.Image, plan: InputPlan, size: tuple[int, int]) -> np.ndarray:
    """A frame, uint8 [h, w, 3] or a Pillow image in RGB, as its plan says: uint8 [*size, 3]."""
    image = _as_picture(image)
    if plan.turned:
        edges = ((0, 0), (ROTATED_EDGE_WIDTH, ROTATED_EDGE_WIDTH), (0, 0))
        image = _as_picture(np.pad(np.rot90(np.asarray(image)), edges, constant_values=ROTATED_EDGE))
    scaled = np.asarray(image.resize((plan.width, plan.height), plan.resample))
    return _fit(scaled[plan.top :, plan.left :], size)


def training_image(
    image: np.ndarray | Image.Image,
    size: tuple[int, int],
    rng: np.random.Generator,
    scale_range: tuple[float, float] = (1.05, 1.1),
) -> np.ndarray:
    """Turns a frame, uint8 [h, w, 3] or a Pillow image in RGB, into a training image, uint8 [*size, 3].

    Rotates portrait frames (height at least 4/3 of width) by 90° counter-clockwise and adds grey edges of 4 pixels left
    and right. Then resizes the frame, aspect kept, to fit `size` times a scale from U(`scale_range`) with a random
    filter, crops it to `size` at a random place, and pads it with 0 at the bottom and right.
    """
    image = _as_picture(image)
    return input_image(image, plan_training_image(image.height, image.width, size, rng, scale_range), size)


def inference_image(image: np.ndarray | Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Resizes a frame, uint8 [h, w, 3] or a Pillow image in RGB, to fit `size` (bilinear, aspect kept) and pads it
    with 0 at the bottom and right: uint8 [*size, 3]. Trim black bars first, over all frames of the video:
    `trim_black_bars`."""
    image = _as_picture(image)
    return input_image(image, plan_inference_image(image.height, image.width, size), size)


def _training_filter(rng: np.random.Generator) -> Image.Resampling:
    """One of the reference's resampling filters that Pillow has."""
    from PIL.Image import Resampling

    filters = (Resampling.NEAREST, Resampling.BOX, Resampling.BILINEAR, Resampling.BICUBIC, Resampling.LANCZOS)
    return filters[rng.integers(len(filters))]


def _as_picture(image: np.ndarray | Image.Image) -> Image.Image:
    from PIL import Image

    return Image.fromarray(image) if isinstance(image, np.ndarray) else image


def _scaled(height: int, width: int, scale: float) -> tuple[int, int]:
    """Height and width times `scale`, rounded down as the reference does, but not through a rounding error (191.9999
    is 192)."""
    return max(int(height * scale + 1e-6), 1), max(int(width * scale + 1e-6), 1)


def _fit(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The top left of `image`, cropped or padded with 0 to `size`."""
    fitted = np.zeros((*size, 3), dtype=np.uint8)
    part = image[: size[0], : size[1]]
    fitted[: part.shape[0], : part.shape[1]] = part
    return fitted
