"""Inputs and shapes of the encoders; test_plain_model.py checks their values."""

from __future__ import annotations

import pytest
import torch

from reserve.model.merlot_reserve import MerlotReserve
from tests.helpers.tiny import tiny

CONFIG = tiny(output_grid=(4, 6))


@pytest.fixture(scope="module")
def model() -> MerlotReserve:
    torch.manual_seed(0)
    return MerlotReserve(CONFIG).requires_grad_(False)


def test_bytes_and_fractions_give_the_same_encoding(model: MerlotReserve) -> None:
    pixels = torch.randint(0, 256, (2, 16, 24, 3), dtype=torch.uint8)
    torch.testing.assert_close(model.vision_encoder(pixels).cls, model.vision_encoder(pixels / 255).cls)


@pytest.mark.parametrize("weights", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("images", [torch.float32, torch.float64, torch.uint8])
def test_images_may_have_another_dtype_than_the_weights(weights: torch.dtype, images: torch.dtype) -> None:
    model = MerlotReserve(CONFIG).to(weights).requires_grad_(False)
    assert model.vision_encoder(torch.zeros(1, 16, 24, 3, dtype=images)).cls.dtype == weights
    assert model.audio_encoder(torch.zeros(1, 60, 65)).cls.dtype == weights


@pytest.mark.parametrize("grid", [(2, 2), (4, 6), (6, 4), (18, 32), (24, 24)])
def test_the_grid_sets_the_number_of_tokens(model: MerlotReserve, grid: tuple[int, int]) -> None:
    encoded = model.vision_encoder(torch.rand(2, grid[0] * 4, grid[1] * 4, 3))
    assert encoded.cls.shape == (2, 64)
    assert encoded.seq.shape == (2, grid[0] * grid[1], 64)
    assert encoded.pooled.shape == (2, grid[0] * grid[1] // 4, 64)
