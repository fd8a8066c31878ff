"""Reports steps whose loss or gradients are not finite, keeps their batches, and ends a run after too many."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from reserve.batch.movable import Movable
from reserve.data.loader import load_batches
from reserve.errors import NotFinite
from reserve.model.tensor_files import DTYPE_NAMES, write_tensors
from reserve.train.distributed import Ranks
from reserve.train.training import Training

logger = logging.getLogger(__name__)

FOLDER = "not_finite"
"""A run's folder for the batches of such steps."""
MOST_KEPT = 10
"""Steps whose batches are kept in a run's folder."""


def report_not_finite(training: Training) -> None:
    """Counts and reports the steps since the last line that were not finite; raises NotFinite after too many."""
    found, limit = training.finite.look(training.step), training.config.train.max_not_finite
    if not found.steps:
        return
    training.not_finite += found.steps
    if limit and found.in_a_row >= limit:
        first = found.first_in_a_row
        raise NotFinite(
            f"the loss or the gradients were not finite in {found.in_a_row} steps in a row, since step {first}. "
            f"{_kept(training, first)} The run stops (train.max_not_finite {limit}) without another checkpoint. Resume "
            "from the last one with a smaller optimizer.learning_rate, or look at the batch"
        )
    kept = _kept(training, found.first)
    if training.ranks.is_first:
        logger.warning(
            "the loss or the gradients were not finite in %d steps since the last line, first in step %d. %s Such "
            "gradients count as 0, and the run goes on",
            found.steps,
            found.first,
            kept,
        )


def _kept(training: Training, step: int) -> str:
    """Loads this rank's batch of a step again and keeps it in the run's folder; says where, or why not."""
    folder = training.run / FOLDER
    kept = {path.name.partition("-")[0] for path in folder.glob("*.json")}
    if len(kept - {f"step_{step:08d}"}) >= MOST_KEPT:
        return f"{folder} holds the batches of {MOST_KEPT} steps and takes no more."
    place = training.place - (training.step - step + 1) * training.config.train.batch_size
    try:
        keys = list(islice(training.sampler(place), training.config.train.accumulate))
        loaded = load_batches(training.dataset, keys, training.task.collate, num_workers=0, finish=training.finish)
        path = keep_batch(folder, step, training.ranks, list(loaded), keys)
    except Exception as error:  # Whatever it is: the run must not end for want of evidence.
        return f"Its batch could not be kept: {error}."
    return f"The batch of step {step} is in {path}."


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
