from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from reserve.data.float_images import finetuning_image, stored_picture, stored_size, zero_shot_image

SIZE = (64, 96)


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_picture_of_the_size_stays_as_it_is():
    image = picture(*SIZE)
    for made in (zero_shot_image(image, SIZE), finetuning_image(image, SIZE)):
        assert made.dtype == np.float32
        assert np.abs(made * 255 - image).max() < 1e-4


def test_padding_is_below_and_right():
    wide = zero_shot_image(np.full((20, 96, 3), 255, np.uint8), SIZE)
    assert (wide[:20] == 1).all()
    assert not wide[20:].any()
    tall = zero_shot_image(np.full((128, 96, 3), 255, np.uint8), SIZE)
    assert (tall[:, :48] == 1).all()
    assert not tall[:, 48:].any()


def test_only_finetuning_turns_portraits():
    portrait = picture(96, 64)
    portrait[:48], portrait[48:] = 255, 0
    turned = finetuning_image(portrait, SIZE)
    # Counter-clockwise: the top comes left, between grey edges.
    assert turned[20, 10].min() > 0.9
    assert turned[20, 85].max() < 0.1
    assert turned[20, 0] == pytest.approx(0.5)
    assert zero_shot_image(portrait, SIZE)[5, 5].min() > 0.9


def test_training_pictures_follow_the_generator_and_stay_in_range():
    image = picture(60, 100)
    made = [finetuning_image(image, SIZE, rng=np.random.default_rng(seed)) for seed in range(40)]
    again = finetuning_image(image, SIZE, rng=np.random.default_rng(3))
    assert np.array_equal(made[3], again)
    assert len({m.tobytes() for m in made}) > 25
    assert all(m.shape == (*SIZE, 3) and m.min() >= 0 and m.max() <= 1 for m in made)


def test_training_scale_widens_the_picture_before_the_crop():
    gradient = np.broadcast_to(np.linspace(0, 255, 96).astype(np.uint8)[None, :, None], (64, 96, 3))
    ranges = [
        np.ptp(finetuning_image(gradient, SIZE, rng=np.random.default_rng(s), scale_range=(2.0, 2.0))) for s in range(9)
    ]
    assert 0.4 < min(ranges) <= max(ranges) < 0.6


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1080, 1920), (450, 800)), ((400, 1000), (400, 1000)), ((900, 451), (800, 401)), ((500, 3000), (133, 798))],
)
def test_stored_sizes(size, expected):
    assert stored_size(*size) == expected


def test_a_stored_picture_is_a_jpeg_of_that_size():
    with Image.open(io.BytesIO(stored_picture(picture(900, 1600)))) as stored:
        assert (stored.format, stored.size) == ("JPEG", (800, 450))
