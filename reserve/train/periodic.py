"""Held-out evaluation of a running run: every n steps its new checkpoint is judged, while the training waits."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reserve.config import FitConfig
from reserve.model.run_checkpoints import list_checkpoints
from reserve.tasks.task import HeldOut, Task
from reserve.terminal import printable_lines
from reserve.train.distributed import Ranks
from reserve.train.evaluate import evaluate_checkpoint
from reserve.train.metrics import EVALUATIONS_NAME, Metrics, NoMetrics, read_metrics
from reserve.train.saving import CheckpointWriter

logger = logging.getLogger(__name__)


def held_out_data(task: Task[Any, Any], run: Path, config: FitConfig) -> HeldOut | None:
    """What train.evaluate_every evaluates on, None where it is 0. Raises ValueError where the task names nothing."""
    every = config.train.evaluate_every
    held_out = task.held_out_data(run)
    if every and held_out is None:
        hint = f": give {task.held_out_inputs}" if task.held_out_inputs else f", which the task {task.name} has none of"
        raise ValueError(f"train.evaluate_every {every} needs held-out data{hint}")
    if not every and held_out is not None and task.held_out_inputs:
        logger.warning("the held-out data is not used: train.evaluate_every is 0")
    return held_out if every else None


class PeriodicEvaluation:
    """Evaluates the checkpoint of every train.evaluate_every steps, each once.

    The first rank evaluates a model of its own, loaded from the checkpoint, while the others wait. Nothing of the
    training changes: no weight, no mode, no generator of random numbers. An evaluation that fails is logged and counted
    in `failed`, and the run goes on.
    """

    def __init__(
        self, task: Task[Any, Any], run: Path, config: FitConfig, ranks: Ranks, held_out: HeldOut | None
    ) -> None:
        self.failed = 0
        self._task, self._run, self._config, self._ranks = task, run, config, ranks
        self._held_out = held_out and replace(held_out, prepared=True)

    def due(self, step: int) -> bool:
        """Whether the checkpoint after `step` steps is one to evaluate."""
        return self._held_out is not None and step > 0 and step % self._config.train.evaluate_every == 0

    def missing(self, step: int) -> bool:
        """Whether it is due and has no result, as where the run was killed meanwhile. Every rank must ask together."""
        if not self.due(step):
            return False
        path = self._run / EVALUATIONS_NAME
        found = self._ranks.is_first and path.is_file() and any(line["step"] == step for line in read_metrics(path))
        return self._ranks.any(self._ranks.is_first and not found)

    def evaluate(self, step: int, checkpoints: CheckpointWriter, metrics: Metrics | NoMetrics) -> None:
        """Evaluates the checkpoint after `step` steps, once it is complete. Every rank must call it.

        Raises what made its save fail, where the run cannot go on without it.
        """
        checkpoints.settle()
        if self._ranks.is_first:
            try:
                self._evaluate(step, metrics)
            except Exception as error:
                self.failed += 1
                reason = printable_lines(f"{error}") or type(error).__name__
                logger.warning("the evaluation after step %d failed: %s; the run goes on", step, reason)
            if self._ranks.device.type == "cuda":
                # What the second model took, for the training's own blocks.
                torch.cuda.empty_cache()
        self._ranks.barrier()

    def _evaluate(self, step: int, metrics: Metrics | NoMetrics) -> None:
        start = time.perf_counter()
        checkpoint = next((found for found in list_checkpoints(self._run) if found.step == step), None)
        if checkpoint is None:
            raise ValueError("its checkpoint was not saved")
        assert self._held_out is not None
        with _unchanged_generators(self._ranks.device):
            evaluation = evaluate_checkpoint(
                self._task, self._config, self._run, checkpoint, self._held_out, device=self._ranks.device
            )
        figures, seconds = evaluation.figures(), time.perf_counter() - start
        metrics.log_evaluation(step, figures, seconds)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        logger.info("held-out data after step %d: %s (%.0f s)", step, shown, seconds)


@contextmanager
def _unchanged_generators(device: torch.device) -> Iterator[None]:
    """Puts every generator of random numbers back to where it was."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
