"""Steps whose loss or gradients are not finite: counted on the device, reported, and their batches kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from reserve.batch.movable import Movable
from reserve.model.tensor_files import DTYPE_NAMES, write_tensors
from reserve.train.distributed import Ranks

logger = logging.getLogger(__name__)

FOLDER = "not_finite"
"""A run's folder for the batches of such steps."""
MOST_KEPT = 10
"""Steps whose batches are kept in a run's folder."""


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


def keep_batch(
    folder: Path, step: int, ranks: Ranks, micro_batches: Sequence[Movable], keys: Sequence[Sequence[tuple[int, int]]]
) -> Path:
    """Writes this rank's micro-batches of a step to `folder`; returns the file's path.

    A safetensors file holds their tensors as "PART/FIELD", and a JSON file beside it the `keys` (epoch, index) of the
    examples of each. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{step:08d}-rank{ranks.rank}.safetensors"
    tensors = {
        f"{part}/{name}": tensor.cpu().clone(memory_format=torch.contiguous_format)
        for part, batch in enumerate(micro_batches)
        for name, tensor in _named(batch)
        if tensor.dtype in DTYPE_NAMES
    }
    write_tensors(
        path, {name: (DTYPE_NAMES[t.dtype], tuple(t.shape)) for name, t in tensors.items()}, tensors.__getitem__
    )
    described = {"step": step, "rank": ranks.rank, "world_size": ranks.world_size, "examples": keys}
    path.with_suffix(".json").write_text(json.dumps(described) + "\n", "utf-8")
    return path


def _named(batch: Any) -> Iterator[tuple[str, torch.Tensor]]:
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Movable):
            yield from ((f"{field.name}.{name}", tensor) for name, tensor in _named(value))
        elif isinstance(value, torch.Tensor):
            yield field.name, value
