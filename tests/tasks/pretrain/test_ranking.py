"""Rankings and their metrics against brute force and planted answers."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from reserve.tasks.pretrain import ranking as module
from reserve.tasks.pretrain.evaluation import Evaluation
from reserve.tasks.pretrain.ranking import Ranking, rank


def ranking(above, tied=None, candidates=None) -> Ranking:
    """One query for each of the first candidates, of which there are as many as queries or more."""
    above = np.asarray(above)
    n = len(above)
    candidates = max(n, 10) if candidates is None else candidates
    tied = np.zeros(n, int) if tied is None else np.asarray(tied)
    nothing = np.zeros((n, 5))
    places = np.stack([np.arange(candidates), np.zeros(candidates, int)], 1)
    return Ranking("problem", places, np.arange(n), np.zeros(n), above, tied, nothing.astype(int), nothing)


def ranked(x, y, truth) -> Ranking:
    return rank("problem", x, y, torch.as_tensor(truth), np.zeros((len(y), 2), int))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_recall_is_the_share_of_orders_of_the_tied_that_put_the_true_one_among_the_best(k):
    """Against all orders of the candidates that tie with the true one."""
    rng = np.random.default_rng(k)
    above, tied = rng.integers(0, 6, 50), rng.integers(0, 4, 50)
    expected = np.mean([np.mean([a + before < k for before in range(t + 1)]) for a, t in zip(above, tied, strict=True)])
    assert ranking(above, tied).recall(k) == pytest.approx(expected)


def test_ranks_and_guesses_are_those_of_a_plain_sort():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 8)), rng.standard_normal((30, 8))
    y[5] = y[6] = y[7]
    truth = rng.integers(0, 30, 40)
    got = ranked(torch.tensor(x), torch.tensor(y), truth)

    def unit(v):
        return v / np.sqrt((v**2).sum(-1, keepdims=True) + 1e-5)

    scores = unit(x) @ unit(y).T
    for i, target in enumerate(truth):
        others = np.delete(scores[i], target)
        same = np.isclose(others, scores[i, target], rtol=0, atol=1e-12)
        assert got.above[i] == ((others > scores[i, target]) & ~same).sum()
        assert got.tied[i] == same.sum()
        np.testing.assert_allclose(got.guess_scores[i], np.sort(scores[i])[::-1][:5], atol=1e-12)
        np.testing.assert_allclose(scores[i, got.guesses[i]], got.guess_scores[i], atol=1e-12)
        assert got.true_score[i] == pytest.approx(scores[i, target])


def test_many_queries_are_ranked_as_one_by_one(monkeypatch):
    x, y = torch.randn(23, 8), torch.randn(23, 8)
    whole = ranked(x, y, range(23))
    monkeypatch.setattr(module, "QUERIES_AT_ONCE", 5)
    parts = ranked(x, y, range(23))
    np.testing.assert_array_equal(whole.above, parts.above)
    np.testing.assert_array_equal(whole.guesses, parts.guesses)


@pytest.mark.parametrize(("hits", "n"), [(8, 10), (0, 20), (20, 20), (1, 3), (137, 720)])
def test_the_interval_is_wilsons(hits, n):
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    low, high = ranking([0] * hits + [3] * (n - hits)).interval(1)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_several_maskings_are_pooled_and_each_thing_counts_once_in_the_interval():
    both = ranking([0] * 10 + [9] * 10)
    both.further = [ranking([0] * 20, candidates=40)]
    assert both.queries == 40
    assert both.recall(1) == pytest.approx(30 / 40)
    assert both.chance(1) == pytest.approx((1 / 20 + 1 / 40) / 2)
    assert both.median_rank == 1
    expected = binomtest(15, 20).proportion_ci(method="wilson")
    assert both.interval(1) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize(
    ("above", "tied", "median"), [([0], [0], 1), ([0, 4, 9], None, 5), ([0, 1], None, 1.5), ([2], [3], 4.5)]
)
def test_the_median_rank_counts_from_one_with_ties_in_the_middle(above, tied, median):
    assert ranking(above, tied).median_rank == median


def test_chance_is_k_among_all_but_at_most_one():
    assert ranking([0], candidates=8).chance(1) == 1 / 8
    assert ranking([0], candidates=3).chance(5) == 1


@pytest.mark.parametrize(
    ("hits", "times", "beats"),
    [(60, 50, True), (60, 70, False), (2, 1, False)],
    ids=["clear", "too few times", "noise"],
)
def test_beating_chance_takes_the_times_and_the_interval(hits, times, beats):
    assert ranking([0] * hits + [5] * (100 - hits)).beats_chance(times) is beats


@pytest.mark.parametrize("value", [0.0, 1.0, math.nan], ids=["zeros", "one vector", "not numbers"])
def test_a_constant_model_is_at_chance(value):
    """Not at 1, as it would be if only strictly better candidates counted against it."""
    y = torch.full((12, 4), value)
    got = ranked(y, y, range(12))
    assert got.recall(1) == pytest.approx(1 / 12)
    assert got.median_rank == 6.5
    assert not got.beats_chance(1.5)


def test_a_nan_score_ranks_last():
    y = torch.eye(6)
    y[2, 0] = math.nan
    got = ranked(torch.eye(6), y, range(6))
    assert got.above.tolist() == [0, 0, 5, 0, 0, 0]


def test_without_queries_figures_are_nan_and_json_null(dataset):
    empty = ranked(torch.zeros(0, 4), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert empty.candidates == 0
    assert all(math.isnan(value) for value in (empty.recall(1), *empty.interval(1), empty.chance(1), empty.median_rank))
    assert not empty.beats_chance(1)
    text = json.dumps(Evaluation(3, dataset, [empty]).to_json(), allow_nan=False)
    figures = json.loads(text)["rankings"]["problem"]
    assert figures["recall@1"] is figures["recall@1 95% interval"] is figures["median rank"] is None
    assert "nan%" in str(Evaluation(3, dataset, [empty]))


def test_the_figures_to_plot_are_named_by_problem_and_figure(dataset):
    figures = Evaluation(3, dataset, [ranking([0, 3, 7, 1])]).figures()
    assert figures == {
        "problem_recall_at_1": 0.25,
        "problem_chance_at_1": 0.1,
        "problem_recall_at_5": 0.75,
        "problem_median_rank": 3.0,
    }
