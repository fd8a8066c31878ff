"""A small model and its folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reserve.model.merlot_reserve import MerlotReserve
from tests.helpers.tiny import tiny


@pytest.fixture(scope="module")
def model() -> MerlotReserve:
    torch.manual_seed(0)
    return MerlotReserve(tiny(rotary="standard"))


@pytest.fixture
def folder(model: MerlotReserve, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "pretrained", step=100)
    return tmp_path / "pretrained"
