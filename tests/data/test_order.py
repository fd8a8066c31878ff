"""Every epoch is a permutation of its own, and no example returns soon after its last use."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reserve.data import order
from reserve.data.order import ExampleStream, SetShare, epoch_order

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


SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=4)


def shares(*sets: tuple[int, float | None]) -> list[SetShare]:
    return [SetShare(f"set {number}", examples, weight) for number, (examples, weight) in enumerate(sets)]


def set_of(index: int, sets: list[SetShare]) -> int:
    return int(np.searchsorted(np.cumsum([each.examples for each in sets]), index, side="right"))


@given(st.integers(1, 60), SEEDS, st.integers(0, 500), st.integers(0, 200))
def test_one_set_alone_is_in_the_order_of_its_epochs(num_examples, seed, start, count):
    """Whatever its weight: runs of before there were mixtures go on in their order."""
    epochs = range((start + count) // num_examples + 1)
    every = [(epoch, int(index)) for epoch in epochs for index in epoch_order(num_examples, seed, epoch)]
    for weight in (None, 0.3):
        stream = ExampleStream(shares((num_examples, weight)), seed)
        assert stream.keys(start, count) == every[start : start + count]


@pytest.mark.parametrize("weights", [(None,) * 4, (1, 2, 3, 1)])
@given(SIZES, SEEDS, st.integers(0, 5000), st.integers(0, 60), st.integers(0, 60))
def test_a_stream_may_be_read_from_anywhere(weights, sizes, seed, start, count, more):
    sets = shares(*zip(sizes, weights, strict=False))
    whole = ExampleStream(sets, seed).keys(start, count + more)
    assert ExampleStream(sets, seed).keys(start + count, more) == whole[count:]
    stream = ExampleStream(sets, seed)
    assert stream.keys(start + count, more) + stream.keys(start, count) == whole[count:] + whole[:count]


@pytest.mark.parametrize(
    ("weights", "block", "counts"),
    [
        ((3, 1), 1024, (768, 256)),
        ((0.75, 0.25), 1024, (768, 256)),
        ((1, 1, 1), 1024, (342, 341, 341)),
        ((0.5, 0.3, 0.2), 1024, (512, 307, 205)),
        ((999, 1), 8192, (8184, 8)),
        ((None, 300), 1024, (640, 384)),
    ],
)
def test_every_block_has_the_same_number_of_a_sets_examples(weights, block, counts):
    """Its weight, to the nearest example that the block has room for."""
    sets = shares(*zip((500, 300, 1000), weights, strict=False))
    stream = ExampleStream(sets, 3)
    assert stream.block == block
    for number in range(3):
        keys = stream.keys(number * block, block)
        found = np.bincount([set_of(index, sets) for _, index in keys], minlength=len(sets))
        assert tuple(found) == counts


@given(SIZES, SEEDS, st.integers(0, 5000))
def test_sets_without_weights_are_one(sizes, seed, start):
    """So each epoch has every example once, and sets of any sizes fit batches of any size."""
    stream = ExampleStream(shares(*((size, None) for size in sizes)), seed)
    assert stream.keys(start, 50) == ExampleStream(shares((sum(sizes), None)), seed).keys(start, 50)
    stream.check_batch(sum(sizes))


def test_blocks_are_shuffled_each_in_its_own_way():
    sets = shares((50, 1), (50, 1))
    blocks = [
        [set_of(i, sets) for _, i in ExampleStream(sets, seed).keys(b * 1024, 1024)]
        for seed in (0, 1)
        for b in range(3)
    ]
    assert len(set(map(tuple, blocks))) == 6
    # Runs of one set are as short as those of a fair coin.
    assert all(max(len(list(run)) for _, run in itertools.groupby(block)) < 25 for block in blocks)


@given(SIZES, SEEDS)
def test_every_set_has_each_of_its_examples_once_in_an_epoch(sizes, seed):
    sets = shares(*((size, weight) for size, weight in zip(sizes, (1, 2.5, 0.7, 1), strict=False)))
    keys = ExampleStream(sets, seed).keys(0, 3000)
    for number, each in enumerate(sets):
        own = [(epoch, index) for epoch, index in keys if set_of(index, sets) == number]
        first = sum(other.examples for other in sets[:number])
        for epoch in range(len(own) // each.examples):
            used = own[epoch * each.examples : (epoch + 1) * each.examples]
            assert sorted(used) == [(epoch, first + index) for index in range(each.examples)]
        assert least_gap([index for _, index in own]) >= each.examples // 3


def test_sets_of_one_size_are_in_different_orders():
    keys = ExampleStream(shares((40, 1), (40, 1)), 0).keys(0, 1024)
    first, second = ([i % 40 for _, i in keys if i // 40 == number] for number in (0, 1))
    assert first != second


def test_the_order_of_existing_mixtures_stays():
    """Checkpoints hold only a number."""
    keys = ExampleStream(shares((5, 2), (9, 1)), 7).keys(1020, 8)
    assert keys == [(37, 10), (136, 4), (37, 6), (136, 3), (37, 7), (38, 13), (38, 12), (136, 0)]


def test_what_decides_the_order_decides_its_identity():
    base = [SetShare("a", 50, 1.0, "x"), SetShare("b", 40, 2.0, "y")]
    others = [
        [SetShare("a", 50, 1.0, "x")],
        base[::-1],
        [replace(base[0], examples=51), base[1]],
        [replace(base[0], weight=1.1), base[1]],
        [replace(base[0], identity="z"), base[1]],
        [replace(base[0], weight=None), replace(base[1], weight=None)],
        [replace(base[0], weight=None, examples=40), replace(base[1], weight=None, examples=50)],
        [replace(base[0], weight=50), replace(base[1], weight=40)],
    ]
    identities = {ExampleStream(sets).identity for sets in (base, *others)}
    assert len(identities) == 9
    # A set that was moved, and weights that mean the same.
    assert (
        ExampleStream([replace(base[0], name="c", weight=10.0), replace(base[1], weight=20.0)]).identity in identities
    )


def test_one_set_of_unknown_identity_has_none():
    """As in checkpoints of before there were mixtures."""
    assert ExampleStream(shares((50, None))).identity == ""


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_not_positive_is_refused(weight):
    with pytest.raises(ValueError, match=rf"above 0 and finite; got set 1 of weight {weight:g} with 9 examples"):
        ExampleStream(shares((5, 1), (9, weight)))


def test_a_share_too_small_to_be_kept_is_refused():
    with pytest.raises(ValueError, match=r"set 1 of weight 1e-09 with 9 examples has too small a share"):
        ExampleStream(shares((5, 1), (9, 1e-9)))


@pytest.mark.parametrize(("size", "refused"), [(8, None), (20, None), (21, "set 1"), (31, "set 0 of weight 1 with 30")])
def test_a_set_smaller_than_its_part_of_a_batch_is_refused(size, refused):
    stream = ExampleStream(shares((30, 1), (20, 1)))
    if refused is None:
        stream.check_batch(size)
        return
    with pytest.raises(ValueError, match=f"{refused}.* too small to be mixed: a batch of {size} can hold {size}"):
        stream.check_batch(size)


def test_a_small_set_of_small_weight_is_used_with_large_batches():
    """In 2048 positions there are at most three times its 10 in a block."""
    ExampleStream(shares((30, 1), (10**6, 99))).check_batch(2048)
    with pytest.raises(ValueError, match="can hold 30 of its examples"):
        ExampleStream(shares((29, 1), (10**6, 99))).check_batch(2048)
