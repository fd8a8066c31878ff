"""A small data set and a random evaluation of it."""

from __future__ import annotations

import pytest

from reserve.tasks.pretrain.dataset import PretrainDataset
from reserve.tasks.pretrain.evaluation import Evaluation
from tests.helpers.random_rankings import evaluate_at_random
from tests.helpers.small_stores import make_dataset, make_stores


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> PretrainDataset:
    return make_dataset(make_stores(tmp_path_factory.mktemp("stores")), training=False)


@pytest.fixture(scope="session")
def evaluation(dataset) -> Evaluation:
    return evaluate_at_random(dataset)
