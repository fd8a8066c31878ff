"""Fractions with 95% intervals over runs of several seeds and over videos, and their differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95


class Interval(NamedTuple):
    """A value and its 95% interval, without end where too little is known."""

    value: float
    low: float
    high: float

    @property
    def is_known(self) -> bool:
        return bool(np.isfinite(self.low))


class _Part(NamedTuple):
    """A share of an estimate's variance, and the degrees of freedom that it was estimated with."""

    variance: float
    freedom: int


@dataclass(frozen=True)
class Outcomes:
    """Right answers of several runs to the same questions.

    `right` float [runs, groups] sums over the questions of each group, such as a video; `asked` int [groups] counts
    them. `is_seeded` says that other seeds would give other answers, so that one run says little.
    """

    right: np.ndarray
    asked: np.ndarray
    is_seeded: bool = True

    @classmethod
    def of(cls, right: Sequence[Sequence[float]], asked: Sequence[int], *, is_seeded: bool = True) -> Outcomes:
        """The outcomes, without groups of no question."""
        counts = np.asarray(asked, dtype=np.int64)
        return cls(np.asarray(right, dtype=np.float64)[:, counts > 0], counts[counts > 0], is_seeded)

    @property
    def value(self) -> float:
        """The fraction of right answers, over all runs and questions."""
        return float(self.right.sum() / (len(self.right) * self.asked.sum()))

    @property
    def by_run(self) -> np.ndarray:
        """The fraction of each run, float [runs]."""
        return self.right.sum(1) / self.asked.sum()

    def lows_by_run(self) -> list[float]:
        """The lower end of each run's interval of other groups: of that model, not of those of other seeds."""
        return [replace(self, right=run[None], is_seeded=False).interval().low for run in self.right]

    def interval(self) -> Interval:
        """The fraction with the interval of other seeds and other groups, within 0 and 1 if it is known."""
        found = _interval(self.value, [self._of_groups(self.right.mean(0)), *self._of_runs()])
        return Interval(found.value, max(found.low, 0.0), min(found.high, 1.0)) if found.is_known else found

    def minus(self, other: Outcomes) -> Interval:
        """The difference to other runs on the same questions: groups are compared each with itself, runs are not."""
        if not np.array_equal(self.asked, other.asked):
            raise ValueError("the questions must be the same")
        groups = self._of_groups(self.right.mean(0) - other.right.mean(0))
        return _interval(self.value - other.value, [groups, *self._of_runs(), *other._of_runs()])

    def _of_groups(self, right: np.ndarray) -> _Part:
        """What other groups would change in sum(right) / sum(asked): linearised, groups independent."""
        n, total = len(self.asked), self.asked.sum()
        if n < 2:
            return _UNKNOWN
        residuals = right - self.asked * (right.sum() / total)
        return _Part(float(n / (n - 1) * (residuals**2).sum() / total**2), n - 1)

    def _of_runs(self) -> list[_Part]:
        """What other seeds would change in the mean over the runs."""
        n = len(self.right)
        if not self.is_seeded:
            return []
        return [_Part(float(self.by_run.var(ddof=1) / n), n - 1) if n > 1 else _UNKNOWN]


_UNKNOWN = _Part(np.inf, 1)
_ROUNDING = 1e-20
# Variances that are 0 but for rounding are below it.


def _interval(value: float, parts: Sequence[_Part]) -> Interval:
    """Student's t with the degrees of freedom of Satterthwaite for the sum of the parts' variances.

    With three seeds or six speakers that is much wider than a normal distribution or a bootstrap would have it. Where
    nothing varies, as where no answer is right, the variance is unknown rather than 0.
    """
    variance = sum(part.variance for part in parts)
    if variance < _ROUNDING or np.isinf(variance):
        return Interval(value, -np.inf, np.inf)
    freedom = variance**2 / sum(part.variance**2 / part.freedom for part in parts)
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(variance))
    return Interval(value, value - half, value + half)


def verdict(difference: Interval) -> str:
    """What a difference of two arms shows."""
    if difference.low > 0:
        return "beats"
    return "is behind" if difference.high < 0 else "no difference shown"
