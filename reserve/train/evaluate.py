"""Evaluates a run's last checkpoint on held-out data, whatever its task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from reserve.config import FitConfig
from reserve.fs import write_text_atomic
from reserve.model.initialization import float32_on_cpu, undrawn
from reserve.model.pretrained import Pretrained
from reserve.model.run_checkpoints import Checkpoint, list_checkpoints
from reserve.tasks.task import Evaluation, HeldOut, Task
from reserve.train.distributed import pick_device
from reserve.train.run_folder import read_run

EVALUATION_NAME = "evaluation.json"
DETAILS_NAME = "evaluation_details.json"


def evaluate_run(
    run: Path,
    sources: Sequence[str],
    *,
    shards: Sequence[str] = (),
    workers: int = 2,
    seed: int = 0,
    split: str = "val",
) -> Evaluation:
    """Evaluates a run's last checkpoint on `sources`, or on sets of prepared `shards`; writes `run`/evaluation.json.

    `workers` processes prepare the data; `seed` seeds the evaluation's random choices; `split` is the part of a data
    set that has several, whose result is in evaluation_SPLIT.json unless it is "val". Raises ValueError if `run` is not
    a run's folder, is damaged or has no checkpoint, and what the task raises for sources that cannot be used.
    """
    if seed < 0:
        raise ValueError(f"seed must be at least 0; got {seed}")
    task, config = read_run(run)
    checkpoints = list_checkpoints(run)
    if not checkpoints:
        raise ValueError(f"{run} has no checkpoint yet")
    held_out = HeldOut(sources, run / task.held_out_folder, workers, seed, split, shards)
    return evaluate_checkpoint(task, config, run, checkpoints[-1], held_out)


def evaluate_checkpoint(
    task: Task[Any, Any],
    config: FitConfig,
    run: Path,
    checkpoint: Checkpoint,
    held_out: HeldOut,
    *,
    device: torch.device | None = None,
) -> Evaluation:
    """Evaluates a checkpoint on `device`, by default the run's; writes `run`/evaluation.json.

    Raises CheckpointError for a damaged checkpoint, and what the task raises for held-out data that cannot be used.
    """
    with undrawn(), float32_on_cpu():
        model = task.build_model()
    model.restore(checkpoint.path)
    return _evaluate(task, model, held_out, config, run, checkpoint.step, device)


def evaluate_start(task: Task[Any, Any], out: Path, config: FitConfig, held_out: HeldOut) -> Evaluation:
    """Evaluates the weights that a task starts from, without training, and writes the result into the folder `out`."""
    if not task.has_start:
        raise ValueError("there are no weights to evaluate: name some as the start")
    with undrawn(), float32_on_cpu():
        model = task.build_model()
    task.load_finished(model)
    return _evaluate(task, model, held_out, config, out, 0)


def _evaluate(
    task: Task[Any, Any],
    model: Pretrained,
    held_out: HeldOut,
    config: FitConfig,
    folder: Path,
    step: int,
    device: torch.device | None = None,
) -> Evaluation:
    held_out.folder.mkdir(parents=True, exist_ok=True)
    model = model.to(device or pick_device(config.train.device))
    evaluation = task.evaluate(model, held_out, config=config.train, step=step)
    store_evaluation(folder, evaluation, held_out.split)
    return evaluation


def store_evaluation(folder: Path, evaluation: Evaluation, split: str = "val") -> None:
    """Writes evaluation.json, and evaluation_details.json if there is more to look at; of another split, its file."""
    if split != "val":
        write_text_atomic(folder / f"evaluation_{split}.json", json.dumps(evaluation.to_json(), indent=1) + "\n")
        return
    details = evaluation.details()
    if details is not None:
        write_text_atomic(folder / DETAILS_NAME, json.dumps(details) + "\n")
    write_text_atomic(folder / EVALUATION_NAME, json.dumps(evaluation.to_json(), indent=1) + "\n")
