"""One comparison with the reference: a figure and the bound it must keep."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Figure:
    """What was compared, how, the worst value found and the bound it must keep."""

    what: str
    measure: str
    value: float
    bound: float
    at_least: bool = False

    @property
    def holds(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    """|ours - theirs| / |theirs| in the Euclidean norm."""
    return float(np.linalg.norm(ours.astype(np.float64) - theirs) / np.linalg.norm(theirs.astype(np.float64)))


def largest(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours.astype(np.float64) - theirs).max())
