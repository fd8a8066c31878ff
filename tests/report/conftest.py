"""A small data set and a ranking of it."""

from __future__ import annotations

import pytest
from random_rankings import evaluate_at_random
from small_stores import make_dataset, make_stores

from reserve.data.dataset import PretrainDataset
from reserve.evaluate import Evaluation


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> PretrainDataset:
    return make_dataset(make_stores(tmp_path_factory.mktemp("stores")), training=False)


@pytest.fixture(scope="session")
def evaluation(dataset) -> Evaluation:
    return evaluate_at_random(dataset)
