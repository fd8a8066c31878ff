"""A folder in VCR's layout, written once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers.vcr_folder import write_vcr


@pytest.fixture(scope="session")
def vcr_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four questions in each split. Tests that change it copy it."""
    pytest.importorskip("sacremoses", reason="needs the extra tasks")
    return write_vcr(tmp_path_factory.mktemp("vcr"))


@pytest.fixture
def changed_folder(vcr_folder: Path, tmp_path: Path) -> Path:
    """A copy of `vcr_folder` to change."""
    return Path(shutil.copytree(vcr_folder, tmp_path / "vcr"))
