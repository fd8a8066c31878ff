"""A folder in TVQA's layout, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.tvqa_folder import write_tvqa


@pytest.fixture(scope="session")
def tvqa_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips and questions in train and in val, test about val's clips. Tests that change it copy it."""
    pytest.importorskip("av", reason="needs the extra video")
    return write_tvqa(tmp_path_factory.mktemp("tvqa"))


@pytest.fixture
def changed_folder(tvqa_folder: Path, tmp_path: Path) -> Path:
    """A copy of `tvqa_folder` to change."""
    import shutil

    return Path(shutil.copytree(tvqa_folder, tmp_path / "tvqa"))
