"""Intervals over runs and videos."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.learning.intervals import Interval, Outcomes, verdict

ASKED = [10] * 20


def outcomes(rate: float, seed: int, runs: int = 3, spread: float = 0.0) -> Outcomes:
    rng = np.random.default_rng(seed)
    rates = np.clip(rng.normal(rate, spread, (runs, len(ASKED))), 0, 1)
    return Outcomes.of(rng.binomial(ASKED, rates).tolist(), ASKED)


def test_the_interval_holds_the_value_and_repeats():
    found = outcomes(0.3, 0)
    value, low, high = found.interval()
    assert value == pytest.approx(found.right.sum() / 600)
    assert low < value < high
    assert found.interval() == found.interval()


def test_what_differs_between_videos_widens_the_interval():
    """The same answers as independent questions and in whole videos that are all right or all wrong."""
    rng = np.random.default_rng(0)
    whole = Outcomes.of([(rng.random(20) < 0.5) * 10.0] * 3, ASKED)
    mixed = Outcomes.of([np.full(20, whole.value * 10)] * 3, ASKED)
    assert whole.value == pytest.approx(mixed.value)
    assert np.ptp(whole.interval()[1:]) > 10 * np.ptp(mixed.interval()[1:])


def test_what_differs_between_seeds_widens_the_interval():
    apart = Outcomes.of([[2.0] * 20, [5.0] * 20, [8.0] * 20], ASKED)
    assert np.ptp(apart.interval()[1:]) > 0.2


def test_arms_that_share_hard_videos_are_told_apart():
    hard = np.repeat([1.0, 9.0], 10)
    ours, theirs = Outcomes.of([hard] * 3, ASKED), Outcomes.of([hard - 1] * 3, ASKED)
    assert ours.interval().low < theirs.interval().high
    assert verdict(ours.minus(theirs)) == "beats"
    assert verdict(theirs.minus(ours)) == "is behind"


def test_the_same_arm_shows_no_difference():
    assert verdict(outcomes(0.3, 1).minus(outcomes(0.3, 2))) == "no difference shown"
    assert verdict(Interval(0.0, 0.0, 0.0)) == "no difference shown"


def test_other_questions_are_refused():
    with pytest.raises(ValueError, match="same"):
        outcomes(0.3, 0).minus(Outcomes.of([[1.0]], [2]))
