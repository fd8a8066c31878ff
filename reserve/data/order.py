"""The order of examples: a pure function of the seed, and of the sizes and weights of the sets that are mixed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MOST_APART = 2**16
"""Twice the largest batch anybody trains with (32,768); more distance would only make epochs less random."""
_FIRST_BLOCK, _LARGEST_BLOCK, _LEAST_IN_BLOCK = 2**10, 2**24, 8
_BLOCKS = 2**32 - 1
"""The stream of random numbers that blocks are drawn from; those of sets have their numbers."""


def epoch_order(num_examples: int, seed: int, epoch: int, *, stream: int = 0) -> npt.NDArray[np.int64]:
    """The examples of an epoch in the order of their use: a permutation, int64 [num_examples].

    Between two uses of an example there are at least min(num_examples // 3, 65536) others, also from one epoch to the
    next. So a batch of at most that many examples never holds one twice, although batches straddle epochs: in a
    contrastive loss the second one would be a false negative. Larger batches can hold some twice. Other streams of one
    seed have other orders.
    """
    apart = min(num_examples // 3, MOST_APART)
    if epoch == 0 or apart == 0:
        return _generator(seed, epoch, stream).permutation(num_examples)
    # A copy, so that this permutation is freed before the next one is drawn.
    recent = _generator(seed, epoch - 1, stream).permutation(num_examples)[-apart:].copy()
    rng = _generator(seed, epoch, stream)
    order = rng.permutation(num_examples)
    # Examples of the previous epoch's end must not be at the start of this one: swap them with some that follow. The
    # end of an epoch is never changed, so this does not depend on the epochs before the previous one.
    is_recent = np.isin(order[: 2 * apart], recent)
    early = np.flatnonzero(is_recent[:apart])
    later = rng.permutation(apart + np.flatnonzero(~is_recent[apart:]))[: len(early)]
    order[early], order[later] = order[later], order[early]
    return order


@dataclass(frozen=True)
class SetShare:
    """A set of a mixture. `weight` is its share of the examples used, against the other sets' weights; None for its
    number of examples. `identity` changes whenever its contents do; empty where that is not known."""

    name: str
    examples: int
    weight: float | None = None
    identity: str = ""

    def __str__(self) -> str:
        weight = "" if self.weight is None else f" of weight {self.weight:g}"
        return f"{self.name}{weight} with {self.examples} examples"


class ExampleStream:
    """The examples of one set or of several, in the order of their use: a pure function of the sets' sizes, the weights
    and the seed.

    Positions are counted from the start of training. Sets without weights are one: each epoch has every example of all
    sets once, in the `epoch_order` of their total.

    With weights, each block of `block` positions has the same number of examples of a set: its weight, rounded by the
    largest remainder. Where in a block they are is a permutation drawn from the seed and the block's number. The k-th
    example of a set is example k % examples of epoch k // examples in the set's own `epoch_order`. So every set has
    each of its examples once in each of its epochs. A block has 1024 positions, or as many times twice that as the
    smallest set needs for 8 of them.
    """

    def __init__(self, sets: Sequence[SetShare], seed: int = 0) -> None:
        """Raises ValueError naming the set whose weight is not positive or is too small beside the others."""
        self.sets, self.seed = tuple(sets), seed
        weighted = any(each.weight is not None for each in self.sets)
        # The sets that have an order each.
        self._mixed = self.sets if weighted else (SetShare("the data set", sum(each.examples for each in self.sets)),)
        weights = [each.examples if each.weight is None else each.weight for each in self._mixed]
        for each, weight in zip(self._mixed, weights, strict=True):
            if not 0 < weight < math.inf:
                raise ValueError(f"the weight of a set must be above 0 and finite; got {each}")
        shares = np.array(weights, np.float64) / sum(weights)
        self.block = _FIRST_BLOCK
        while self.block * shares.min() < _LEAST_IN_BLOCK:
            self.block *= 2
            if self.block > _LARGEST_BLOCK:
                raise ValueError(
                    f"{self._mixed[shares.argmin()]} has too small a share of the mixture: {shares.min():g}"
                )
        self._counts = _largest_remainder(shares, self.block)
        # The number of each mixed set's first example.
        self._first = np.cumsum([0, *(each.examples for each in self._mixed)]).tolist()
        self._blocks: tuple[int, npt.NDArray[np.int64]] | None = None
        self._orders: dict[int, tuple[int, npt.NDArray[np.int64]]] = {}

    def __len__(self) -> int:
        """Examples of all sets."""
        return int(self._first[-1])

    @property
    def identity(self) -> str:
        """What tells orders of one seed and number of examples apart. Empty for one set of unknown identity."""
        if len(self.sets) == 1 and not self.sets[0].identity:
            return ""
        described = [[each.examples, each.identity] for each in self.sets]
        return hashlib.sha256(json.dumps([self.block, self._counts, described]).encode()).hexdigest()

    def check_batch(self, size: int) -> None:
        """Raises ValueError where a batch of `size` examples can have more of a set than the set has."""
        for each, count in zip(self._mixed, self._counts, strict=True):
            most = min(size, count * (-(-size // self.block) + 1))
            if most > each.examples:
                raise ValueError(
                    f"{each} is too small to be mixed: a batch of {size} can hold {most} of its examples, so some "
                    "twice; give it less weight, leave it out, or use a smaller train.batch_size"
                )

    def keys(self, start: int, count: int) -> list[tuple[int, int]]:
        """(epoch, index) at `count` positions from `start` on. `epoch` is that of the example's set, or of all sets if
        they have no weights; `index` counts through all sets, in their order."""
        found: list[tuple[int, int]] = []
        while len(found) < count:
            block, offset = divmod(start + len(found), self.block)
            sets = self._sets_of_block(block)
            before = np.bincount(sets[:offset], minlength=len(self._mixed))
            places = [block * self._counts[s] + int(b) for s, b in enumerate(before)]
            for number in sets[offset : offset + count - len(found)].tolist():
                found.append(self._key(number, places[number]))
                places[number] += 1
        return found

    def _key(self, number: int, place: int) -> tuple[int, int]:
        epoch, within = divmod(place, self._mixed[number].examples)
        return epoch, self._first[number] + int(self._order(number, epoch)[within])

    def _order(self, number: int, epoch: int) -> npt.NDArray[np.int64]:
        if number not in self._orders or self._orders[number][0] != epoch:
            self._orders.pop(number, None)  # frees its memory before the next order is made
            self._orders[number] = epoch, epoch_order(self._mixed[number].examples, self.seed, epoch, stream=number)
        return self._orders[number][1]

    def _sets_of_block(self, block: int) -> npt.NDArray[np.int64]:
        """The set of each position of a block, int64 [block]."""
        if self._blocks is None or self._blocks[0] != block:
            sets = np.repeat(np.arange(len(self._mixed)), self._counts)
            self._blocks = block, _generator(self.seed, block, _BLOCKS).permutation(sets)
        return self._blocks[1]


def _largest_remainder(shares: npt.NDArray[np.float64], total: int) -> list[int]:
    """`total` things divided by shares of sum 1, rounded down; those left go where most was rounded off."""
    counts = np.floor(shares * total).astype(np.int64)
    counts[np.argsort(counts - shares * total, kind="stable")[: total - counts.sum()]] += 1
    return [int(count) for count in counts]


def _generator(seed: int, epoch: int, stream: int = 0) -> np.random.Generator:
    # Trailing zeros do not change what a generator draws.
    return np.random.default_rng([seed, epoch, stream])
