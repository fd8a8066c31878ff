"""A small data set."""

from __future__ import annotations

import pytest

from reserve.tasks.pretrain.dataset import PretrainDataset
from tests.helpers.small_stores import make_dataset, make_stores


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> PretrainDataset:
    return make_dataset(make_stores(tmp_path_factory.mktemp("stores")), training=False)
