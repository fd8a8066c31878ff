"""DALI's pictures against Pillow's, on the CPU: every filter, turned and upright, small and large, and damage."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from reserve.data import dali_pictures
from reserve.data.dali_pictures import DaliPictures
from reserve.data.decode.dali import library
from reserve.data.encoded_images import EncodedImage, EncodedImages
from reserve.data.images import encode_jpeg, jpeg_size, plan_inference_image, plan_training_image
from reserve.errors import BadInput

SIZE = (192, 320)
SIDES = [(288, 512), (271, 481), (288, 216), (512, 288), (100, 120), (33, 17), (288, 384)]
FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4}
MOST = {"lanczos": 5, "bilinear": 3, "bicubic": 3}
MEAN = {"nearest": 1.5, "lanczos": 0.3, "bilinear": 0.3, "bicubic": 0.3, "box": 4.0}
"""Levels of 255 by which DALI may differ from Pillow: at most in any pixel, and on average."""


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def pictures(request):
    if (reason := library.import_failure()) is not None:
        pytest.skip(reason)
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    return DaliPictures(SIZE, request.param)


def textured(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Waves, noise, and a patch with hard edges: uint8 [height, width, 3]."""
    rows, columns = np.mgrid[:height, :width]
    picture = (128 + 60 * np.sin(columns / 23) * np.cos(rows / 17))[..., None] + rng.normal(0, 8, (height, width, 3))
    picture[height // 3 : height // 2, width // 4 : width // 2] = (200, 30, 60)
    return np.clip(picture, 0, 255).astype(np.uint8)


def encoded(sides: tuple[int, int], rng: np.random.Generator, *, training: bool = True) -> EncodedImage:
    jpeg = encode_jpeg(textured(*sides, rng))
    assert jpeg_size(jpeg) == sides
    plan = plan_training_image(*sides, SIZE, rng) if training else plan_inference_image(*sides, SIZE)
    return EncodedImage("a-video", jpeg, sides, plan)


@pytest.mark.parametrize("name", FILTERS)
def test_training_images_match_pillows(pictures, name):
    rng = np.random.default_rng(0)
    batch = [encoded(sides, rng) for sides in SIDES]
    batch = [replace(each, plan=replace(each.plan, resample=FILTERS[name])) for each in batch]
    assert {each.plan.turned for each in batch} == {True, False}
    found = pictures(batch)
    assert found.dtype == torch.uint8
    assert found.shape == (len(SIDES), *SIZE, 3)
    expected = np.stack([each.decoded(SIZE) for each in batch]).astype(int)
    difference = np.abs(found.cpu().numpy() - expected)
    assert difference.mean(axis=(1, 2, 3)).max() <= MEAN[name]
    assert difference.max() <= MOST.get(name, 255)


def test_inference_images_match_pillows(pictures):
    rng = np.random.default_rng(1)
    batch = [encoded(sides, rng, training=False) for sides in SIDES]
    expected = np.stack([each.decoded(SIZE) for each in batch]).astype(int)
    assert np.abs(pictures(batch).cpu().numpy() - expected).max() <= MOST["bilinear"]


def test_a_picture_does_not_depend_on_its_batch(pictures, monkeypatch):
    monkeypatch.setattr(dali_pictures, "MOST_PICTURES", 3)
    few = DaliPictures(SIZE, pictures(()).device)
    rng = np.random.default_rng(2)
    batch = [encoded(sides, rng) for sides in SIDES]
    assert torch.equal(few(batch), torch.cat([few([each]) for each in batch]))
    assert torch.equal(few(batch), pictures(batch))


def test_no_pictures(pictures):
    assert pictures([]).shape == (0, *SIZE, 3)


@pytest.mark.parametrize("damaged", [b"", b"\xff\xd8\xff", b"x" * 4000, "half"])
def test_a_damaged_picture_is_named_and_the_next_batch_is_decoded(pictures, damaged, caplog):
    rng = np.random.default_rng(3)
    good = encoded((288, 512), rng)
    jpeg = good.jpeg[: len(good.jpeg) // 2] if damaged == "half" else damaged
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(BadInput, match=r"^bad-video: a stored frame is not a complete"),
    ):
        pictures([good, replace(good, video_id="bad-video", jpeg=jpeg)])
    assert "DALI cannot decode a batch of 2 pictures; Pillow does: " in caplog.text
    assert np.abs(pictures([good])[0].cpu().numpy() - good.decoded(SIZE).astype(int)).mean() <= MEAN["box"]


def test_a_picture_that_only_pillow_takes(pictures, caplog):
    """Bytes after the end of the file, or whatever else DALI alone refuses: the batch is decoded all the same."""
    rng = np.random.default_rng(4)
    batch = [encoded((288, 512), rng), encoded((100, 120), rng)]

    def refuse(_):
        raise RuntimeError("Critical error in pipeline:\nError in operator\n\nencountered:\n\nno such picture\nstack")

    broken = DaliPictures(SIZE, "cpu")
    broken._run = refuse
    with caplog.at_level(logging.WARNING):
        found = broken(batch)
    assert (found.numpy() == np.stack([each.decoded(SIZE) for each in batch])).all()
    assert "Pillow does: no such picture" in caplog.text


def test_without_dali_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(library, "find_spec", lambda _: None)
    with pytest.raises(RuntimeError, match=r"cannot be decoded by DALI: .*pip install 'merlot-reserve\[dali\]'"):
        DaliPictures(SIZE)


def test_the_shape_of_a_batch():
    assert EncodedImages([None] * 12, segments=4, size=(64, 96)).shape == (3, 4, 64, 96, 3)
