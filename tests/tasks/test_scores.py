from __future__ import annotations

import json
import math

import numpy as np
import pytest

from reserve.tasks.scores import Score, TaskScores, mean_score, statistic_score


def test_a_mean_has_the_interval_of_its_bootstrap():
    values = np.random.default_rng(0).random(400) < 0.3
    score = mean_score("x", values, chance=0.25)
    assert score.value == values.mean()
    # Of a mean of 400 questions, that of the normal distribution is close.
    deviation = math.sqrt(score.value * (1 - score.value) / 400)
    assert score.low == pytest.approx(score.value - 1.96 * deviation, abs=0.006)
    assert score.high == pytest.approx(score.value + 1.96 * deviation, abs=0.006)
    assert (score.count, score.chance) == (400, 0.25)


def test_it_is_a_function_of_its_arguments():
    values = np.arange(50) % 3 == 0
    assert mean_score("x", values) == mean_score("x", values)
    assert mean_score("x", values) != mean_score("x", values, seed=1)


def test_groups_are_resampled_whole():
    """Ten questions that share one answer are as good as one: the interval is that of the groups."""
    answers = np.random.default_rng(1).random(40) < 0.5
    values, groups = np.repeat(answers, 10), np.repeat(np.arange(40), 10)
    alone, together = mean_score("x", values), mean_score("x", values, groups=groups)
    assert together.value == alone.value
    assert together.high - together.low == pytest.approx(math.sqrt(10) * (alone.high - alone.low), rel=0.1)
    by_group = mean_score("x", answers)
    assert together.low == pytest.approx(by_group.low, abs=0.03)


def test_groups_of_unequal_size_weigh_by_their_questions():
    values, groups = np.array([1, 1, 1, 0]), np.array([7, 7, 7, 2])
    score = mean_score("x", values, groups=groups)
    assert score.value == 0.75
    assert (score.low, score.high) == (0, 1)


def test_without_questions_or_with_one_group_there_is_no_interval():
    none, one = mean_score("x", np.zeros(0)), mean_score("x", np.ones(5), groups=np.zeros(5))
    assert math.isnan(none.value)
    assert none.count == 0
    assert one.value == 1
    assert math.isnan(one.low)
    assert math.isnan(mean_score("x", np.ones(1)).high)


def test_a_statistic_is_bootstrapped_over_questions():
    values = np.random.default_rng(2).random(200)
    score = statistic_score("median", lambda indices: float(np.median(values[indices])), 200)
    assert score.value == np.median(values)
    assert score.low < score.value < score.high
    assert score.high - score.low < 0.2
    same = mean_score("x", values)
    mean = statistic_score("x", lambda indices: float(values[indices].mean()), 200)
    assert (mean.low, mean.high) == pytest.approx((same.low, same.high))


def test_a_statistic_is_bootstrapped_over_groups():
    answers = np.random.default_rng(3).random(40) < 0.5
    values, groups = np.tile(answers, 5).astype(float), np.tile(np.arange(40), 5)
    together = statistic_score("x", lambda indices: float(values[indices].mean()), 200, groups=groups)
    same = mean_score("x", values, groups=groups)
    assert (together.low, together.high) == pytest.approx((same.low, same.high))
    one = statistic_score("x", lambda indices: float(values[indices].mean()), 200, groups=np.zeros(200))
    assert one.value == values.mean()
    assert math.isnan(one.low)


def test_samples_in_which_a_statistic_is_unknown_do_not_count():
    values = np.array([0.0, 1.0])
    # NaN where the sample lacks question 0.
    score = statistic_score("x", lambda i: float(values[i].max()) if (i == 0).any() else math.nan, 2)
    assert (score.low, score.high) == (0, 1)
    never = statistic_score("x", lambda i: math.nan, 2)
    assert math.isnan(never.low)
    assert math.isnan(statistic_score("x", lambda i: 1.0, 0).value)


def test_scores_are_printed_and_stored():
    scores = TaskScores(
        "vcr", "val", (Score("Q->A", 0.5, 0.25, 0.75, 12, 0.25), Score("x", 0.1, math.nan, math.nan, 3)), ("a note",), 7
    )
    assert str(TaskScores("vcr", "val", (mean_score("y", np.zeros(0)),))).splitlines()[1].split() == [
        "y",
        "unknown",
        "unknown",
        "0",
    ]
    assert str(scores).splitlines() == [
        "vcr, val  percent  95% interval    chance  questions",
        "Q->A      50.00    25.00 to 75.00  25.00   12",
        "x         10.00    unknown                 3",
        "a note",
    ]
    stored = json.loads(json.dumps(scores.to_json(), allow_nan=False))
    assert stored["step"] == 7
    assert stored["notes"] == ["a note"]
    assert stored["scores"][1] == {"name": "x", "value": 0.1, "low": None, "high": None, "count": 3, "chance": None}
    assert scores["Q->A"].high == 0.75
    with pytest.raises(KeyError):
        scores["Q->R"]


def test_the_figures_to_plot_are_the_values_by_name():
    scores = (mean_score("accuracy", np.array([1, 0, 1, 1])), mean_score("recall", np.array([])))
    figures = TaskScores("task", "val", scores).figures()
    assert figures["accuracy"] == 0.75
    assert math.isnan(figures["recall"])
