"""Videos of ten examples, whose words differ from segment to segment."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.small_stores import make_stores


@pytest.fixture(scope="session")
def stores(tmp_path_factory) -> list[Path]:
    return make_stores(tmp_path_factory.mktemp("stores"), videos=5, segments=8)


@pytest.fixture
def prepared(stores, tmp_path, monkeypatch) -> Path:
    """A folder that counts as the one where they were prepared."""
    for module in ("reserve.tasks.pretrain.task", "benchmarks.learning.spans", "benchmarks.learning.arms"):
        monkeypatch.setattr(f"{module}.recorded_stores", {tmp_path: stores}.__getitem__)
    return tmp_path
