"""Scores of a task with 95% intervals, and the evaluation that holds them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

RESAMPLES = 2000
"""Bootstrap samples of an interval: its ends are then exact to about a twentieth of its width."""
# Indices drawn at a time, which bounds the memory.
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Score:
    """A figure over `count` questions with its 95% bootstrap interval, and what guessing gives (None: unknown).

    All are fractions. `value` is NaN without questions, the interval also where all questions belong to one group: they
    say nothing of how others would differ.
    """

    name: str
    value: float
    low: float
    high: float
    count: int
    chance: float | None = None


@dataclass(frozen=True)
class TaskScores:
    """What evaluating a model on a split of a task's data set found. `notes` say what was left out and why."""

    task: str
    split: str
    scores: tuple[Score, ...]
    notes: tuple[str, ...] = ()
    step: int = 0

    def __getitem__(self, name: str) -> Score:
        """The score called `name`. Raises KeyError."""
        return {score.name: score for score in self.scores}[name]

    def figures(self) -> dict[str, float]:
        """The scores' values by name."""
        return {score.name: score.value for score in self.scores}

    def details(self) -> None:
        """There is no more to look at: predictions are in files of their own."""
        return

    def to_json(self) -> dict[str, Any]:
        """Everything, NaN as null."""
        rows = [{k: None if v != v else v for k, v in asdict(score).items()} for score in self.scores]
        return {"task": self.task, "split": self.split, "step": self.step, "scores": rows, "notes": list(self.notes)}

    def __str__(self) -> str:
        header = (f"{self.task}, {self.split}", "percent", "95% interval", "chance", "questions")
        rows = [header, *map(_row, self.scores)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join((*lines, *self.notes))


def _row(score: Score) -> tuple[str, ...]:
    chance = "" if score.chance is None else f"{100 * score.chance:.2f}"
    known = score.low == score.low
    interval = f"{100 * score.low:.2f} to {100 * score.high:.2f}" if known else "unknown"
    value = f"{100 * score.value:.2f}" if score.value == score.value else "unknown"
    return score.name, value, interval, chance, str(score.count)


def mean_score(
    name: str,
    values: np.ndarray,
    *,
    chance: float | None = None,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> Score:
    """The mean of `values` [n] with its interval.

    `groups` int [n] says which questions belong together, such as those of one video: whole groups are then resampled,
    since answers within one are not independent. A pure function of its arguments.
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        return Score(name, math.nan, math.nan, math.nan, 0, chance)
    of = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums, sizes = np.bincount(of, values), np.bincount(of)
    if len(sums) == 1:
        return Score(name, float(values.mean()), math.nan, math.nan, len(values), chance)
    means = np.concatenate([sums[drawn].sum(1) / sizes[drawn].sum(1) for drawn in _resampled(len(sums), seed)])
    return Score(name, float(values.mean()), *_interval(means), len(values), chance)


def statistic_score(
    name: str,
    statistic: Callable[[np.ndarray], float],
    count: int,
    *,
    chance: float | None = None,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> Score:
    """Any statistic of questions: `statistic(indices)` is its value on the questions int [n], some of them repeated.

    `groups` int [count] as in `mean_score`. Samples where it is NaN, for lack of questions of some kind, do not count.
    """
    if not count:
        return Score(name, math.nan, math.nan, math.nan, 0, chance)
    of = np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1]
    value = float(statistic(np.arange(count)))
    members = np.split(np.argsort(of, kind="stable"), np.cumsum(np.bincount(of))[:-1])
    if len(members) == 1:
        return Score(name, value, math.nan, math.nan, count, chance)
    drawn = [
        statistic(np.concatenate([members[group] for group in sample]) if groups is not None else sample)
        for block in _resampled(len(members), seed)
        for sample in block
    ]
    return Score(name, value, *_interval(np.array(drawn)), count, chance)


def _resampled(count: int, seed: int) -> Iterator[np.ndarray]:
    """Indices of bootstrap samples, int [some, count] at a time."""
    rng = np.random.default_rng(seed)
    rows = max(_BLOCK // count, 1)
    for first in range(0, RESAMPLES, rows):
        yield rng.integers(count, size=(min(rows, RESAMPLES - first), count))


def _interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95% of bootstrapped values."""
    values = values[~np.isnan(values)]
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
