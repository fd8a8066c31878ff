"""What the benchmark of waiting trains on, and what it makes of a run's metrics."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.waiting import LOADED, REPEATED, WARM_UP, PreparedPretrain, RepeatedPretrain, run_steps, summary, tiny
from tests.helpers.small_stores import make_stores


def test_the_start_counts_only_where_it_is_named():
    first = {"seconds_waiting": 6.0, "examples_per_second": 1.0}
    others = {"seconds_waiting": 0.1, "examples_per_second": 4.0}
    lines = [first] + [others] * (WARM_UP + 9)
    found = summary(lines, 8)
    assert found["share_waiting"] == pytest.approx(0.1 / 2)
    assert found["share_waiting_with_start"] == pytest.approx((6 + 0.1 * (WARM_UP + 9)) / (8 + 2 * (WARM_UP + 9)))
    assert found["examples_per_second"] == pytest.approx(4)
    assert found["seconds_waiting_for_first_batch"] == 6


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A folder whose videos have ten examples."""
    stores = make_stores(tmp_path, videos=5, segments=16)
    monkeypatch.setattr("reserve.tasks.pretrain.task.recorded_stores", {tmp_path: stores}.__getitem__)
    return tmp_path


def small_batches():
    """The demo's settings for two steps of fewer examples than the folder has."""
    config = tiny(2, 0)
    return replace(config, train=replace(config.train, batch_size=8))


def test_the_repeated_batch_is_one_that_is_loaded(prepared):
    config = small_batches()
    repeating = RepeatedPretrain(data=config.data, model=config.model, prepared=prepared)
    repeated = repeating.training_set(prepared, config.train)
    batches = [repeating.collate([repeated[0, 0]]), repeating.collate([repeated[1, 5]])]
    assert batches[0] is batches[1]
    loading = PreparedPretrain(data=config.data, model=config.model, prepared=prepared)
    examples = loading.training_set(prepared, config.train)
    expected = loading.collate([examples[0, index] for index in range(config.train.batch_size)])
    assert torch.equal(batches[0].images, expected.images)


@pytest.mark.parametrize("kind", [LOADED, REPEATED])
def test_a_run_of_either_kind_has_a_line_a_step(prepared, kind):
    assert [line["step"] for line in run_steps(kind, prepared, small_batches())] == [1, 2]
