"""A folder in the layout of Kinetics-600, written once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def kinetics_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips in train, three in val and test, those of "zumba" without sound. Tests that change it copy it."""
    pytest.importorskip("av", reason="needs the extra video")
    from tests.helpers.kinetics_folder import write_kinetics

    return write_kinetics(tmp_path_factory.mktemp("kinetics"))


@pytest.fixture
def changed_folder(kinetics_folder: Path, tmp_path: Path) -> Path:
    """A copy of `kinetics_folder` to change."""
    return Path(shutil.copytree(kinetics_folder, tmp_path / "kinetics"))
