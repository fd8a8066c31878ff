"""Fractions with 95% intervals over runs of several seeds and over videos, and their differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

RESAMPLES = 4000
"""Bootstrap samples of an interval."""


class Interval(NamedTuple):
    """A value and its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Outcomes:
    """Right answers of several runs to the same questions.

    `right` float [runs, groups] sums over the questions of each group, such as a video; `asked` int [groups] counts
    them.
    """

    right: np.ndarray
    asked: np.ndarray

    @classmethod
    def of(cls, right: Sequence[Sequence[float]], asked: Sequence[int]) -> Outcomes:
        return cls(np.asarray(right, dtype=np.float64), np.asarray(asked, dtype=np.int64))

    @property
    def value(self) -> float:
        """The fraction of right answers, over all runs and questions."""
        return float(self.right.sum() / (len(self.right) * self.asked.sum()))

    @property
    def by_run(self) -> np.ndarray:
        """The fraction of each run, float [runs]."""
        return self.right.sum(1) / self.asked.sum()

    def interval(self, seed: int = 0) -> Interval:
        """The fraction, with the interval of a bootstrap that draws runs and, independently, whole groups anew."""
        rng = np.random.default_rng(seed)
        return _interval(self.value, self._drawn(rng, _weights(rng, len(self.asked))), self._fewest)

    def minus(self, other: Outcomes, seed: int = 0) -> Interval:
        """The difference to the outcomes of other runs on the same questions: each sample draws the same groups for
        both, and the runs of each independently."""
        if not np.array_equal(self.asked, other.asked):
            raise ValueError("the questions must be the same")
        rng = np.random.default_rng(seed)
        groups = _weights(rng, len(self.asked))
        fewest = min(self._fewest, other._fewest)
        return _interval(self.value - other.value, self._drawn(rng, groups) - other._drawn(rng, groups), fewest)

    @property
    def _fewest(self) -> int:
        """The smaller number of runs and groups that differences are estimated from."""
        return min(n for n in (*self.right.shape, 2 * RESAMPLES) if n > 1)

    def _drawn(self, rng: np.random.Generator, groups: np.ndarray) -> np.ndarray:
        """The fraction in each sample, float [samples]; `groups` int [samples, groups]: how often each is drawn."""
        runs = _weights(rng, len(self.right))
        right = np.einsum("sr,rg,sg->s", runs, self.right, groups)
        return right / (len(self.right) * (groups @ self.asked))


def _weights(rng: np.random.Generator, n: int) -> np.ndarray:
    """How often each of n is drawn when n are drawn with replacement, int [RESAMPLES, n]."""
    return rng.multinomial(n, np.full(n, 1 / n), RESAMPLES)


def _interval(value: float, samples: np.ndarray, fewest: int) -> Interval:
    """The quantiles of the samples, as far from the value as an unbiased estimate of the variance has them: a bootstrap
    of n has (n - 1) / n of it."""
    low, high = np.quantile(samples, (0.025, 0.975)) - value
    wider = np.sqrt(fewest / (fewest - 1))
    return Interval(value, float(value + wider * low), float(value + wider * high))


def verdict(difference: Interval) -> str:
    """What a difference of two arms shows."""
    if difference.low > 0:
        return "beats"
    return "is behind" if difference.high < 0 else "no difference shown"
