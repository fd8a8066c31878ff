"""Every epoch is a permutation of its own, and no example returns soon after its last use."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reserve.data import order
from reserve.data.order import epoch_order

SEEDS = st.integers(0, 2**32)


def least_gap(stream: list[int]) -> int:
    """The least number of other examples between two uses of one."""
    last, least = {}, len(stream)
    for position, example in enumerate(stream):
        least = min(least, position - last.get(example, -len(stream)) - 1)
        last[example] = position
    return least


@given(st.integers(1, 60), SEEDS, st.integers(0, 1000))
def test_an_epoch_has_every_example_once(num_examples, seed, epoch):
    assert sorted(epoch_order(num_examples, seed, epoch)) == list(range(num_examples))


@given(st.integers(1, 60), SEEDS, st.integers(0, 1000))
def test_an_example_does_not_return_within_a_third_of_the_data_set(num_examples, seed, epoch):
    stream = [int(i) for e in range(epoch, epoch + 4) for i in epoch_order(num_examples, seed, e)]
    assert least_gap(stream) >= num_examples // 3


def test_examples_return_sooner_in_plain_permutations():
    """What the test above excludes happens without the exchange."""
    plain = [int(i) for e in range(4) for i in np.random.default_rng([0, e]).permutation(60)]
    assert least_gap(plain) < 20


def test_the_distance_of_large_data_sets_is_limited(monkeypatch):
    """To what batches need, so that the rest of the epoch stays as it was drawn."""
    monkeypatch.setattr(order, "MOST_APART", 5)
    orders = [epoch_order(60, 0, epoch) for epoch in range(30)]
    assert least_gap([int(i) for o in orders for i in o]) >= 5
    for epoch, found in enumerate(orders):
        assert (found[10:] == np.random.default_rng([0, epoch]).permutation(60)[10:]).all()


def test_seed_and_epoch_decide_the_order():
    orders = {tuple(epoch_order(23, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_every_place_of_an_epoch_gets_every_example():
    """Over many epochs each example is equally often at each place, though the start of an epoch is drawn with care."""
    counts = np.zeros((6, 6), int)
    for epoch in range(1, 3001):
        counts[np.arange(6), epoch_order(6, 0, epoch)] += 1
    assert counts.min() > 400
    assert counts.max() < 600


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [
        (0, [4, 6, 2, 7, 3, 5, 9, 0, 8, 1]),
        (1, [9, 7, 3, 8, 1, 6, 0, 4, 2, 5]),
    ],
)
def test_the_order_of_existing_runs_stays(epoch, expected):
    """Checkpoints hold only a number: with another order, their runs would use some examples twice."""
    assert epoch_order(10, 0, epoch).tolist() == expected
