"""Counts steps whose loss or gradients are not finite, on the device: a step does not wait for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from reserve.train.distributed import Ranks


@dataclass(frozen=True)
class Found:
    """Steps that were not finite on any rank: how many since the last look and which was the first of them, how many
    in a row up to now and which was the first of those. Steps count from 1; a first step is 0 where there is none."""

    steps: int
    first: int
    in_a_row: int
    first_in_a_row: int


class FiniteCheck:
    """Counts the steps that are not finite. `add` does not wait for the device; `look` does."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        # In a row, in a row before, since the last look, first since the last look.
        self._counts = torch.zeros(3, dtype=torch.int64, device=ranks.device)

    def add(self, step: int, loss: torch.Tensor, gradient_norm: torch.Tensor) -> None:
        """Counts step `step`."""
        bad = ~(loss.detach().isfinite() & gradient_norm.detach().isfinite())
        in_a_row, since, first = self._counts.unbind()
        first = torch.where(bad & (since == 0), step, first)
        self._counts = torch.stack([(in_a_row + 1) * bad, since + bad, first])

    def look(self, step: int) -> Found:
        """What was found up to step `step`, the last one that was counted. Every rank must call it together."""
        in_a_row, since, first = self._counts.tolist()
        self._counts[1:] = 0
        # The largest of -first is that of the smallest first; a rank without one has nothing to say.
        longest, most, earliest = self._ranks.max([in_a_row, since, -first if first else -float("inf")])
        count = round(longest)
        return Found(round(most), round(-earliest) if most else 0, count, step - count + 1 if count else 0)
