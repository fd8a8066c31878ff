"""The schedules of SPEC 9 at their corners."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reserve.train.schedule import learning_rate_scale


def scale(step: int, warmup: int, total: int, decay: str = "cosine") -> float:
    return learning_rate_scale(step, num_warmup_steps=warmup, num_train_steps=total, decay=decay)


def test_warm_up_is_linear_from_zero() -> None:
    assert [scale(step, 4, 10) for step in range(4)] == [0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_peak_comes_at_the_end_of_the_warm_up(decay: str) -> None:
    assert scale(4, 4, 10, decay) == 1
    assert scale(0, 0, 10, decay) == 1


def test_cosine_is_halfway_and_ends_as_stated() -> None:
    # 10 - 4 + 1 = 7 steps of decay.
    assert scale(7, 4, 10) == pytest.approx(0.02 + 0.98 * (1 + math.cos(math.pi * 3 / 7)) / 2, abs=1e-15)
    assert scale(11, 4, 10) == pytest.approx(0.02, abs=1e-15)
    assert scale(10**9, 4, 10) == pytest.approx(0.02, abs=1e-15)


def test_linear_ends_at_zero() -> None:
    assert scale(10, 4, 10, "linear") == pytest.approx(1 / 7, abs=1e-15)
    assert scale(11, 4, 10, "linear") == 0
    assert scale(10**9, 4, 10, "linear") == 0


@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_run_that_is_all_warm_up(decay: str) -> None:
    assert scale(9, 10, 10, decay) == 0.9
    assert scale(10, 10, 10, decay) == 1


@given(st.integers(0, 200), st.integers(0, 100), st.integers(1, 100), st.sampled_from(["cosine", "linear"]))
def test_it_stays_between_zero_and_one_and_only_rises_in_the_warm_up(
    step: int, warmup: int, rest: int, decay: str
) -> None:
    now, after = scale(step, warmup, warmup + rest, decay), scale(step + 1, warmup, warmup + rest, decay)
    assert 0 <= now <= 1
    assert after >= now if step + 1 <= warmup else after <= now
