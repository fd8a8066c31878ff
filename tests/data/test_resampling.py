"""Filters against other libraries' where they have the same one, and against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from reserve.data.resampling import METHODS, resample, weights

SIZES = [((90, 160), (36, 64)), ((20, 33), (64, 105)), ((97, 131), (64, 40)), ((1, 5), (3, 2)), ((7, 7), (7, 3))]


def picture(size):
    return np.random.default_rng(0).random((*size, 3), dtype=np.float32)


@pytest.mark.parametrize(("size", "target"), SIZES)
@pytest.mark.parametrize(("method", "mode"), [("bilinear", "bilinear"), ("bicubic", "bicubic")])
def test_agrees_with_torch(size, target, method, mode):
    image = picture(size)
    theirs = F.interpolate(torch.from_numpy(image).permute(2, 0, 1)[None].double(), target, mode=mode, antialias=True)
    assert np.abs(resample(image, *target, method) - theirs[0].permute(1, 2, 0).numpy()).max() < 2e-6


@pytest.mark.parametrize(("size", "target"), SIZES)
@pytest.mark.parametrize(("method", "theirs"), [("lanczos3", "LANCZOS"), ("area", "BOX"), ("nearest", "NEAREST")])
def test_agrees_with_pillow(size, target, method, theirs):
    image = picture(size)
    if method == "area" and (
        (target[0] % size[0] and size[0] % target[0]) or (target[1] % size[1] and size[1] % target[1])
    ):
        image = np.full_like(image, 0.25)  # Pillow takes whole pixels where ours takes parts
    bands = [
        np.asarray(Image.fromarray(image[..., c]).resize(target[::-1], Image.Resampling[theirs])) for c in range(3)
    ]
    assert np.abs(resample(image, *target, method) - np.stack(bands, -1)).max() < 2e-6


def test_area_takes_parts_of_pixels():
    assert weights(3, 2, "area") == pytest.approx(np.array([[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]]))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("size", "resized"), [(50, 20), (20, 50), (13, 13), (1, 4), (4, 1)])
def test_weights_sum_to_one_and_are_symmetric(method, size, resized):
    matrix = weights(size, resized, method)
    assert matrix.shape == (resized, size)
    assert matrix.sum(1) == pytest.approx(1)
    if method != "nearest":  # which takes the pixel on the right in the middle between two
        assert matrix == pytest.approx(matrix[::-1, ::-1], abs=1e-6)


def mitchell(x):
    return np.where(x < 1, (21 * x**3 - 36 * x**2 + 16) / 18, (-7 * x**3 + 36 * x**2 - 60 * x + 32) / 18)


@pytest.mark.parametrize(
    ("method", "kernel", "radius"),
    [
        ("mitchellcubic", mitchell, 2),
        ("gaussian", lambda x: np.exp(-(x**2) / 0.5), 1.5),
        ("lanczos5", lambda x: np.sinc(x) * np.sinc(x / 5), 5),
    ],
)
def test_filters_are_those_of_their_name(method, kernel, radius):
    """Doubled in size, a pixel lies a quarter of an old one beside the nearest."""
    distance = np.abs(np.arange(-8, 9) - 0.25)
    expected = np.where(distance <= radius, kernel(distance), 0)
    assert weights(31, 62, method)[31, 7:24] == pytest.approx(expected / expected.sum(), abs=1e-6)


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match=r"method must be one of 'area', .*; got 'cubic'"):
        weights(3, 4, "cubic")
