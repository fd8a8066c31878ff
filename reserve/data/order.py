"""The order of the examples of a data set: a pure function of (seed, epoch, index)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MOST_APART = 2**16
"""Twice the largest batch anybody trains with (32,768); more distance would only make epochs less random."""


def epoch_order(num_examples: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The examples of an epoch in the order of their use: a permutation, int64 [num_examples].

    Between two uses of an example there are at least min(num_examples // 3, 65536) others, also from one epoch to the
    next. So a batch of at most that many examples never holds one twice, although batches straddle epochs: in a
    contrastive loss the second one would be a false negative. Larger batches can hold some twice.
    """
    apart = min(num_examples // 3, MOST_APART)
    if epoch == 0 or apart == 0:
        return _generator(seed, epoch).permutation(num_examples)
    # A copy, so that this permutation is freed before the next one is drawn.
    recent = _generator(seed, epoch - 1).permutation(num_examples)[-apart:].copy()
    rng = _generator(seed, epoch)
    order = rng.permutation(num_examples)
    # Examples of the previous epoch's end must not be at the start of this one: swap them with some that follow. The
    # end of an epoch is never changed, so this does not depend on the epochs before the previous one.
    is_recent = np.isin(order[: 2 * apart], recent)
    early = np.flatnonzero(is_recent[:apart])
    later = rng.permutation(apart + np.flatnonzero(~is_recent[apart:]))[: len(early)]
    order[early], order[later] = order[later], order[early]
    return order


def _generator(seed: int, epoch: int) -> np.random.Generator:
    return np.random.default_rng([seed, epoch])
