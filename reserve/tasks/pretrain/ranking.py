"""Ranks of the true candidates among all candidates, and the metrics computed from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from reserve.model.merlot_reserve import unit_normalize

GUESSES = 5
QUERIES_AT_ONCE = 1024
"""Queries scored at a time, which bounds the memory of large held-out sets."""
NORMAL_95 = 1.959964
"""95% of a normal distribution is within this many standard deviations of the mean."""


@dataclass
class Ranking:
    """How the true candidate of each of n queries ranks among all candidates of a problem.

    `places` int [candidates, 2] identifies each candidate: its example in the data set, and the segment
    (imgs_to_audio), subsegment (text_to_audio) or text span (stuff_to_span) within that example. `truth` int [n]: the
    true candidate; `true_score` float32 [n]: its cosine with the prediction; `above` int [n]: how many candidates score
    higher; `tied` int [n]: how many others score the same. `guesses` int [n, 5]: the best candidates, best first;
    `guess_scores` float32 [n, 5]: their cosines. `further` are the rankings under other maskings of the same data set:
    the metrics pool the queries of all maskings, each ranked among the candidates of its own masking.
    """

    name: str
    places: np.ndarray
    truth: np.ndarray
    true_score: np.ndarray
    above: np.ndarray
    tied: np.ndarray
    guesses: np.ndarray
    guess_scores: np.ndarray
    further: list[Ranking] = field(default_factory=list)

    @property
    def candidates(self) -> int:
        return len(self.places)

    @property
    def queries(self) -> int:
        """Queries of all maskings."""
        return sum(len(masking.truth) for masking in self._maskings)

    @property
    def _maskings(self) -> list[Ranking]:
        return [self, *self.further]

    def _pooled(self, figure: Callable[[Ranking], np.ndarray]) -> np.ndarray:
        """A value per query, over the queries of all maskings."""
        return np.concatenate([figure(masking) for masking in self._maskings])

    def recall(self, k: int) -> float:
        """Fraction of queries whose true candidate is among the best k, in expectation if ties are broken at random.

        NaN without queries, like all metrics.
        """
        hits = self._pooled(lambda one: np.clip((k - one.above) / (one.tied + 1), 0, 1))
        return float(hits.mean()) if len(hits) else math.nan

    def interval(self, k: int) -> tuple[float, float]:
        """The 95% Wilson interval of recall(k).

        A place queried under several maskings counts once: repeated queries are not independent.
        """
        n = len(np.unique(self._pooled(lambda one: one.places[one.truth]), axis=0))
        p, z = self.recall(k), NORMAL_95
        if n == 0:
            return math.nan, math.nan
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(centre - half, 0.0), min(centre + half, 1.0)

    def chance(self, k: int) -> float:
        """Expected recall(k) of random guesses."""
        chances = self._pooled(lambda one: np.full(len(one.truth), min(k / max(one.candidates, 1), 1.0)))
        return float(chances.mean()) if len(chances) else math.nan

    def beats_chance(self, times: float) -> bool:
        """Whether recall@1 is at least `times` chance and its interval lies above chance."""
        return self.recall(1) >= times * self.chance(1) and self.interval(1)[0] > self.chance(1)

    @property
    def median_rank(self) -> float:
        """Median rank of the true candidate, counted from 1; ties take their middle rank."""
        ranks = self._pooled(lambda one: one.above + one.tied / 2 + 1.0)
        return float(np.median(ranks)) if len(ranks) else math.nan

    def figures(self) -> dict[str, Any]:
        """The metrics by name, as JSON values: None for NaN."""
        low, high = self.interval(1)
        figures = {
            "queries": self.queries,
            "candidates": self.candidates,
            "recall@1": self.recall(1),
            "recall@1 95% interval": math.nan if math.isnan(low) else [low, high],
            "chance@1": self.chance(1),
            "recall@5": self.recall(5),
            "chance@5": self.chance(5),
            "median rank": self.median_rank,
            "chance median rank": (self.candidates + 1) / 2,
        }
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value for name, value in figures.items()
        }


def rank(name: str, x: torch.Tensor, y: torch.Tensor, truth: torch.Tensor, places: np.ndarray) -> Ranking:
    """Ranks candidate y[truth[i]] among all of y by its cosine with prediction x[i].

    x [n, dim], y [candidates, dim], truth int [n]. NaN scores rank last, so that a diverged model does not beat chance.
    """
    x, y = unit_normalize(x), unit_normalize(y)
    parts = [
        _rank_rows(rows @ y.T, target)
        for rows, target in zip(x.split(QUERIES_AT_ONCE), truth.split(QUERIES_AT_ONCE), strict=True)
    ]
    columns = [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)]
    true_score, above, tied, guesses, guess_scores = columns
    return Ranking(name, places, truth.cpu().numpy(), true_score, above, tied, guesses, guess_scores)


def _rank_rows(scores: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The fields of Ranking from `true_score` on, from scores [n, candidates] and true candidates [n]."""
    scores = scores.masked_fill(scores.isnan(), -math.inf)
    true_score = scores.gather(1, truth[:, None])
    best = scores.topk(min(GUESSES, scores.shape[1]), dim=1)
    above, tied = (scores > true_score).sum(1), (scores == true_score).sum(1) - 1
    return true_score[:, 0], above, tied, best.indices, best.values
