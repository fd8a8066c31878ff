"""Frames: sizes, black bars, and the resize, crop and padding of SPEC 7."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reserve.data.images import (
    bounded_size,
    decode_jpeg,
    decode_picture,
    encode_jpeg,
    inference_image,
    read_picture,
    training_image,
    trim_black_bars,
)
from reserve.errors import BadInput

SIZE = (192, 320)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1080, 1920), (288, 512)),
        ((720, 960), (288, 384)),
        ((240, 426), (240, 426)),
        ((200, 1000), (102, 512)),
        ((1920, 1080), (512, 288)),
        ((1, 5000), (1, 512)),
    ],
)
def test_bounded_size(size, expected):
    assert bounded_size(*size, 288, 512) == expected


def test_jpeg_round_trip():
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    image[:, 30:] = (200, 100, 50)
    decoded = decode_jpeg(encode_jpeg(image))
    assert decoded.shape == image.shape
    assert np.abs(decoded[:, 40:].astype(int) - (200, 100, 50)).max() < 8


@pytest.mark.parametrize("cut", [0, 10, 200])
def test_cut_jpeg(cut):
    data = encode_jpeg(np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8))
    with pytest.raises(BadInput, match="not a complete JPEG"):
        decode_jpeg(data[:cut])


def test_other_formats_are_not_opened():
    with pytest.raises(BadInput, match="not a complete JPEG"):
        decode_jpeg(b"GIF89a" + bytes(100))


def letterboxed(top, bottom, left, right, bar=0):
    frame = np.full((100, 200, 3), bar, dtype=np.uint8)
    frame[top : 100 - bottom, left : 200 - right] = 90
    return frame


@pytest.mark.parametrize(
    ("bars", "shape"),
    [
        ((10, 12, 0, 0), (78, 200)),
        ((0, 0, 30, 20), (100, 150)),
        ((40, 30, 0, 0), (60, 200)),  # at most 20% of a side at each end
    ],
)
def test_black_bars(bars, shape):
    (trimmed,) = trim_black_bars([letterboxed(*bars, bar=31)])
    assert trimmed.shape == (*shape, 3)


def test_bars_must_be_black_in_all_frames():
    frames = trim_black_bars([letterboxed(10, 10, 0, 0), letterboxed(5, 10, 0, 0)])
    assert [frame.shape for frame in frames] == [(85, 200, 3)] * 2


def test_black_video_is_left_alone():
    black = [np.zeros((50, 60, 3), dtype=np.uint8)]
    assert trim_black_bars(black)[0].shape == (50, 60, 3)
    assert trim_black_bars(black, trim_black=True)[0].shape == (30, 36, 3)


def test_inference_fits_and_pads():
    image = inference_image(np.full((270, 480, 3), 77, dtype=np.uint8), SIZE)
    assert image.shape == (*SIZE, 3)
    assert (image[:180] == 77).all()
    assert not image[180:].any()


def test_inference_does_not_rotate():
    image = inference_image(np.full((400, 200, 3), 77, dtype=np.uint8), SIZE)
    assert (image[:, :96] == 77).all()
    assert not image[:, 96:].any()


class FixedRandom:
    """Stands for a Generator that always draws the same."""

    def __init__(self, uniform):
        self._uniform = uniform

    def uniform(self, low=0.0, high=1.0):
        return low + (high - low) * self._uniform

    def integers(self, _):
        return 2  # bilinear


def ramp(height, width):
    """A picture whose red channel rises from left to right and green from top to bottom."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[..., 0] = np.linspace(0, 255, width)[None]
    image[..., 1] = np.linspace(0, 255, height)[:, None]
    return image


def test_training_scale_and_crop():
    # 1.1 * (192, 320) = (211, 352): the width allows 352 / 480, so the picture becomes (198, 352).
    first = training_image(ramp(270, 480), SIZE, FixedRandom(0.0), (1.1, 1.1))
    last = training_image(ramp(270, 480), SIZE, FixedRandom(0.99999), (1.1, 1.1))
    assert first[0, 0, 0] == 0
    assert first[-1, -1, 0] == pytest.approx(255 * 320 / 352, abs=2)
    assert last[0, 0, 0] == pytest.approx(255 * 31 / 352, abs=2)
    assert last[0, 0, 1] == pytest.approx(255 * 5 / 198, abs=2)


def test_training_pads_what_the_aspect_leaves():
    # A square: 1.05 * 192 = 201 rows and columns; columns beyond stay black.
    image = training_image(np.full((300, 300, 3), 77, dtype=np.uint8), SIZE, FixedRandom(0.0))
    assert (image[:, :201] == 77).all()
    assert not image[:, 201:].any()


def test_upright_frames_are_turned_counter_clockwise_between_grey_edges():
    image = training_image(ramp(512, 288), SIZE, FixedRandom(0.0))
    # Turned: what was right (red) is on top, what was the top (little green) is left, after 4 grey columns.
    assert image[2, 40, 0] > 240
    assert image[2, 40, 1] < image[2, 250, 1]
    assert (image[:186, 0] == 128).all()
    assert not image[186:].any()


def test_slightly_upright_frames_are_not_turned():
    image = training_image(ramp(399, 300), SIZE, FixedRandom(0.0))
    assert image[5, 0, 0] < 10


@settings(deadline=None)
@given(st.integers(1, 600), st.integers(1, 600), st.integers(0, 2**32 - 1))
def test_any_size_gives_the_input_size(height, width, seed):
    image = np.full((height, width, 3), 255, dtype=np.uint8)
    trained = training_image(image, SIZE, np.random.default_rng(seed))
    assert trained.shape == inference_image(image, SIZE).shape == (*SIZE, 3)
    assert trained[0, 10].min() > 0


@pytest.mark.parametrize(("height", "width"), [(270, 480), (512, 288), (40, 30)])
def test_pictures_of_pillow_give_what_arrays_give(height, width):
    data = encode_jpeg(np.random.default_rng(0).integers(256, size=(height, width, 3), dtype=np.uint8))
    array, picture = decode_jpeg(data), decode_picture(data)
    assert (inference_image(picture, SIZE) == inference_image(array, SIZE)).all()
    trained = [training_image(image, SIZE, np.random.default_rng(0)) for image in (picture, array)]
    assert (trained[0] == trained[1]).all()


def test_grey_jpegs_are_read_as_rgb():
    buffer = io.BytesIO()
    Image.new("L", (8, 6), 99).save(buffer, "JPEG")
    assert decode_picture(buffer.getvalue()).mode == "RGB"
    assert (decode_jpeg(buffer.getvalue()) == np.full((6, 8, 3), 99)).all()


def test_training_depends_on_the_generator_alone():
    image = np.random.default_rng(0).integers(256, size=(288, 512, 3), dtype=np.uint8)
    draws = [training_image(image, SIZE, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert (draws[0] == draws[1]).all()
    assert (draws[0] != draws[2]).any()


@pytest.mark.parametrize(
    ("mode", "name"), [("L", "a.jpg"), ("CMYK", "a.jpg"), ("L", "a.png"), ("RGBA", "a.png"), ("P", "a.png")]
)
def test_pictures_of_any_mode_are_read_as_rgb(tmp_path, mode, name):
    pixels = np.full((4, 6, 3), 120, np.uint8)
    Image.fromarray(pixels).convert(mode).save(tmp_path / name)
    assert np.abs(read_picture(tmp_path / name).astype(int) - pixels).max() <= 40  # P has few colours


def test_pictures_of_16_bits_are_refused(tmp_path):
    Image.fromarray(np.full((4, 6), 300, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(BadInput, match=r"a.png: 16 bits a pixel; convert it to 8"):
        read_picture(tmp_path / "a.png")


def test_the_rotation_that_exif_asks_for_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert read_picture(tmp_path / "a.jpg").shape == (4, 6, 3)
