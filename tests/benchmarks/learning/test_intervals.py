"""Intervals over runs and videos."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.learning.intervals import Interval, Outcomes, verdict

ASKED = [10] * 20


def outcomes(rate: float, seed: int, runs: int = 3, spread: float = 0.0) -> Outcomes:
    rng = np.random.default_rng(seed)
    rates = np.clip(rng.normal(rate, spread, (runs, len(ASKED))), 0, 1)
    return Outcomes.of(rng.binomial(ASKED, rates).tolist(), ASKED)


def test_the_interval_of_one_run_is_that_of_a_mean_over_its_groups():
    right = np.random.default_rng(0).binomial(10, 0.3, 20)
    value, low, high = Outcomes.of([right], ASKED, is_seeded=False).interval()
    assert value == pytest.approx(right.sum() / 200)
    expected = stats.t.interval(0.95, 19, right.mean() / 10, stats.sem(right / 10))
    assert (low, high) == pytest.approx(expected)


def test_the_interval_of_runs_that_differ_is_that_of_a_mean_over_the_runs():
    rates = np.array([4.0, 5.0, 6.0])
    found = Outcomes.of([[rate] * 20 for rate in rates], ASKED).interval()
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 2, 0.5, stats.sem(rates / 10)))


def test_fractions_end_at_0_and_1():
    assert Outcomes.of([[rate] * 20 for rate in (1.0, 5.0, 9.0)], ASKED).interval()[1:] == (0, 1)


def test_arms_of_other_seeds_are_compared_as_by_welch():
    ours, theirs = np.array([0.1, 0.5, 0.6]), np.array([0.2, 0.3, 0.25, 0.35])
    found = Outcomes.of(ours[:, None] * 10 * np.ones(20), ASKED).minus(
        Outcomes.of(theirs[:, None] * 10 * np.ones(20), ASKED)
    )
    expected = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("runs", "groups"), [(3, 24), (3, 6)])
def test_intervals_hold_the_truth_as_often_as_they_say(runs, groups):
    """Seeds and groups that both matter, few of each."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(400):
        rates = 0.4 + rng.normal(0, 0.05, (runs, 1)) + rng.normal(0, 0.1, groups)
        right = rng.binomial(20, rates.clip(0, 1))
        _, low, high = Outcomes.of(right.tolist(), [20] * groups).interval()
        held.append(low <= 0.4 <= high)
    assert 0.93 <= np.mean(held) <= 0.99


def test_one_group_and_groups_without_questions_say_nothing_of_others():
    assert not Outcomes.of([[3.0], [4.0]], [10]).interval().is_known
    assert not Outcomes.of([[3.0, 0.0], [4.0, 0.0]], [10, 0]).interval().is_known
    ours, theirs = ([[rate, 0.0], [rate, 0.0]] for rate in (9.0, 1.0))
    assert verdict(Outcomes.of(ours, [10, 0]).minus(Outcomes.of(theirs, [10, 0]))) == "no difference shown"


def test_one_seed_says_nothing_of_others():
    right = np.random.default_rng(0).binomial(10, 0.3, 20)
    assert not Outcomes.of([right], ASKED).interval().is_known
    assert verdict(Outcomes.of([right + 5], ASKED).minus(Outcomes.of([right, right], ASKED))) == "no difference shown"


def test_where_nothing_varies_the_interval_is_not_zero():
    assert Outcomes.of([[0.0] * 20] * 3, ASKED).interval() == (0, -np.inf, np.inf)
    ours, theirs = Outcomes.of([[4.0] * 20] * 3, ASKED), Outcomes.of([[3.0] * 20] * 3, ASKED)
    assert not ours.minus(theirs).is_known


def test_what_differs_between_videos_widens_the_interval():
    """The same answers as independent questions and in whole videos that are all right or all wrong."""
    rng = np.random.default_rng(0)
    whole = Outcomes.of([(rng.random(20) < 0.5) * 10.0] * 3, ASKED)
    mixed = Outcomes.of([rng.binomial(10, whole.value, 20)] * 3, ASKED)
    assert np.ptp(whole.interval()[1:]) > 2 * np.ptp(mixed.interval()[1:])


def test_arms_that_share_hard_videos_are_told_apart():
    hard, fewer = np.repeat([2.0, 9.0], 10), np.tile([1.0, 2.0], 10)
    ours, theirs = Outcomes.of([hard] * 3, ASKED), Outcomes.of([hard - fewer] * 3, ASKED)
    assert ours.interval().low < theirs.interval().high
    assert verdict(ours.minus(theirs)) == "beats"
    assert verdict(theirs.minus(ours)) == "is behind"


def test_the_same_arm_shows_no_difference():
    assert verdict(outcomes(0.3, 1).minus(outcomes(0.3, 2))) == "no difference shown"
    assert verdict(Interval(0.0, 0.0, 0.0)) == "no difference shown"


def test_other_questions_are_refused():
    with pytest.raises(ValueError, match="same"):
        outcomes(0.3, 0).minus(Outcomes.of([[1.0]], [2]))
