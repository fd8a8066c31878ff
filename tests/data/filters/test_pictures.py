"""Thumbnails and hashes of pictures: what survives another encoding, and what tells pictures apart."""

from __future__ import annotations

import numpy as np
import pytest

from reserve.data.filters.pictures import THUMBNAIL_SIDE, is_same_picture, picture_hash, thumbnail
from reserve.data.images import encode_jpeg, resize
from reserve.errors import BadInput


def natural(seed, height=288, width=512):
    """Noise with the spectrum of photographs, uint8 RGB."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    grey = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(height, width))) / frequency**1.1, (height, width))
    return np.clip(125 + 50 * (grey / grey.std())[..., None] + [10, 0, -10], 0, 255).astype(np.uint8)


def grainy(image, grain, seed=0):
    noise = np.random.default_rng(seed).normal(size=image.shape) * grain
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def differing(a, b):
    return (a ^ b).bit_count()


def small(image, quality=75):
    return thumbnail(encode_jpeg(image, quality))


@pytest.mark.parametrize("size", [(288, 512), (40, 60), (20, 30), (1, 1)])
def test_thumbnail_shape(size):
    assert small(np.full((*size, 3), 200, np.uint8)).shape == (THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3)


@pytest.mark.parametrize("cut", [0, 20, 2000])
def test_a_damaged_frame_is_bad_input(cut):
    with pytest.raises(BadInput, match="not a complete JPEG"):
        thumbnail(encode_jpeg(natural(0))[:cut])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("change", "most"),
    [
        (lambda image: grainy(image, 20), 6),
        (lambda image: resize(image, 144, 256), 6),
        (lambda image: resize(image, 270, 480), 6),
        (lambda image: (image * 0.8).astype(np.uint8), 10),
        (lambda image: image[8:-8, 12:-12], 14),
    ],
    ids=["grain", "half", "rescaled", "darker", "cropped"],
)
def test_hashes_of_copies_are_close(seed, change, most):
    image = natural(seed)
    copy = np.ascontiguousarray(change(image))
    assert differing(picture_hash(small(image)), picture_hash(small(copy, quality=30))) <= most


def test_hashes_of_different_pictures_are_far_apart():
    hashes = [picture_hash(small(natural(seed))) for seed in range(40)]
    distances = [differing(a, b) for place, a in enumerate(hashes) for b in hashes[:place]]
    assert min(distances) > 10
    assert 23 < np.mean(distances) < 33


def test_the_noise_of_an_even_picture_does_not_decide_bits():
    columns = np.tile(np.repeat([70, 250, 70, 250, 250, 70, 70, 250], 40).astype(np.uint8)[:, None], (200, 1, 3))
    a, b = (picture_hash(small(grainy(columns, 6, seed), quality=30)) for seed in (1, 2))
    assert differing(a, b) <= 2


def test_flat_pictures_are_told_apart_by_colour():
    def flat(*colour):
        return picture_hash(small(grainy(np.full((90, 160, 3), colour, np.uint8), 4)))

    assert differing(flat(200, 30, 30), flat(203, 28, 33)) <= 2
    assert differing(flat(0, 0, 0), flat(3, 3, 3)) <= 2
    assert differing(flat(0, 0, 0), flat(250, 250, 250)) >= 18
    assert differing(flat(200, 30, 30), flat(30, 30, 200)) >= 12
    assert differing(flat(120, 120, 120), picture_hash(small(natural(0)))) > 16


@pytest.mark.parametrize(("grain", "quality"), [(0, 75), (5, 30), (20, 75), (20, 30)])
def test_a_still_is_the_same_picture_in_any_encoding(grain, quality):
    a, b = (small(grainy(natural(0), grain, seed), quality) for seed in (1, 2))
    assert is_same_picture(a, b)


def test_a_head_that_moves_is_another_picture():
    def head(x, y):
        image = natural(0)
        rows, columns = np.mgrid[:288, :512]
        image[((columns - x) / 48) ** 2 + ((rows - y) / 64) ** 2 < 1] = (205, 160, 130)
        return small(image)

    assert not is_same_picture(head(256, 120), head(262, 124))
    assert is_same_picture(head(256, 120), head(256, 120))


def test_a_clock_in_a_corner_leaves_it_the_same_picture():
    a, b = natural(0), natural(0)
    a[2:14, 2:20], b[2:14, 2:20] = 0, 255
    assert is_same_picture(small(a), small(b))


def test_colour_tells_like_structures_apart():
    stripes = np.tile(np.repeat([0.4, 1.0, 0.7, 0.5], 40)[None, :, None], (100, 1, 3))
    red, blue, darker = (
        picture_hash(small((stripes * colour).astype(np.uint8)))
        for colour in ((230, 60, 50), (50, 60, 230), (200, 52, 44))
    )
    assert differing(red, darker) <= 2
    assert differing(red, blue) >= 5
