"""Coordinates and angles against values computed by hand from SPEC 5."""

from __future__ import annotations

import math

import pytest
import torch

from reserve.batch.coordinates import centred_coordinates, grid_coordinates, with_cls
from reserve.model.rotary import rotary_angles


@pytest.mark.parametrize(("length", "expected"), [(1, [1]), (2, [-1, 1]), (3, [-1, 1, 2]), (6, [-3, -2, -1, 1, 2, 3])])
def test_centred_coordinates_skip_zero(length: int, expected: list[int]) -> None:
    assert centred_coordinates(length).tolist() == expected


def test_grid_is_row_major_height_first_and_scaled_by_the_longer_side() -> None:
    grid = grid_coordinates(2, 3) * 4
    assert grid.dtype == torch.float32
    assert grid.tolist() == [[-1, -1], [-1, 1], [-1, 2], [1, -1], [1, 1], [1, 2]]


def test_cls_stands_at_zero() -> None:
    assert with_cls(torch.ones(2, 3)).tolist() == [[0, 0, 0], [1, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize("axes", [1, 2, 4])
def test_angles_are_axis_major_from_pi_to_five_pi(axes: int) -> None:
    angles = rotary_angles(torch.arange(1, axes + 1, dtype=torch.float64)[None], torch.float64)[0]
    per_axis = 16 // axes
    for axis, mine in enumerate(angles.split(per_axis)):
        expected = [math.pi * (axis + 1) * 5 ** (i / (per_axis - 1)) for i in range(per_axis)]
        torch.testing.assert_close(mine, torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("model", "angles"), [(d, torch.float32) for d in (torch.float32, torch.bfloat16)] + [(torch.float64,) * 2]
)
def test_angles_are_single_precision_at_least(model: torch.dtype, angles: torch.dtype) -> None:
    assert rotary_angles(torch.ones(3, 4), model).dtype == angles
