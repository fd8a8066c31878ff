"""Evaluates a run's last checkpoint on held-out data, whatever its task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from reserve.fs import write_text_atomic
from reserve.model.initialization import float32_on_cpu, undrawn
from reserve.tasks.task import Evaluation, HeldOut
from reserve.train.distributed import pick_device
from reserve.train.run_folder import read_run
from reserve.train.state import list_checkpoints

EVALUATION_NAME = "evaluation.json"
HELD_OUT_FOLDER = "heldout"


def evaluate_run(run: Path, sources: Sequence[str], *, workers: int = 2, seed: int = 0) -> Evaluation:
    """Evaluates a run's last checkpoint on `sources` and writes `run`/evaluation.json.

    `workers` processes prepare the data; `seed` seeds the evaluation's random choices. Raises ValueError if `run`
    is not a run's folder, is damaged or has no checkpoint, and what the task raises for sources that cannot be used.
    """
    if seed < 0:
        raise ValueError(f"seed must be at least 0; got {seed}")
    task, config = read_run(run)
    checkpoints = list_checkpoints(run)
    if not checkpoints:
        raise ValueError(f"{run} has no checkpoint yet")
    with undrawn(), float32_on_cpu():
        model = task.build_model()
    model.restore(checkpoints[-1].path)
    evaluation = task.evaluate(
        model.to(pick_device(config.train.device)),
        HeldOut(sources, run / HELD_OUT_FOLDER, workers, seed),
        config=config.train,
        step=checkpoints[-1].step,
    )
    write_text_atomic(run / EVALUATION_NAME, json.dumps(evaluation.to_json(), indent=1) + "\n")
    return evaluation
