"""Finetune on a data set in its own files, then evaluate and write predictions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reserve.cli.settings import add_settings, add_task_commands, named_options, resumes
from reserve.cli.training import fit_with_report, is_first_rank
from reserve.config import FitConfig, ModelConfig, OptimizerConfig, TrainConfig
from reserve.config.load import config_file
from reserve.config.official import load_model_config
from reserve.errors import UsageError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from reserve.tasks.finetuning import Finetune

TASKS = ("vcr", "tvqa", "kinetics600")


def add_arguments(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    add_task_commands(parser, arguments, TASKS, _task, _add_task_arguments)


def _add_task_arguments(parser: ArgumentParser, task: type[Finetune[Any, Any]], arguments: Sequence[str]) -> None:
    from reserve.tasks.finetuning import BATCH_SIZE, finetuning_optimizer

    sections = {**task.sections(), "optimizer": OptimizerConfig, "train": TrainConfig}
    inputs = {
        "task": str,
        "data": Path,
        "weights": str | None,
        "as_released": bool,
        "tokenizer": Path | None,
        "out": Path,
    }
    defaults = {
        "model": task.model_config(_sizes(arguments)),
        "optimizer": finetuning_optimizer(task.learning_rate),
        "train": TrainConfig(batch_size=BATCH_SIZE),
    }
    stored = add_settings(parser, arguments, sections, inputs, defaults, presets=False)
    if stored.get("task", task.name) != task.name:
        raise UsageError(f"the configuration is of the task {stored['task']}, not of {task.name}")
    parser.add_argument("--data", type=Path, default=stored.get("data"), help="the data set's folder")
    parser.add_argument(
        "--weights",
        type=str,
        default=stored.get("weights"),
        help="weights to start from: a folder, a hub id, or an official checkpoint, which needs --sizes",
    )
    parser.add_argument(
        "--sizes",
        type=str,
        help="of official weights, or of a model that starts at random: base_resadapt, large_resadapt, base, large, "
        "tiny or a YAML file",
    )
    parser.add_argument("--out", type=Path, help="the run's folder")
    parser.add_argument("--tokenizer", type=Path, default=stored.get("tokenizer"), help="the released vocabulary")
    parser.add_argument(
        "--epochs", type=float, help=f"passes over the training set, {task.epochs} by default; decides the steps"
    )
    parser.add_argument("--split", type=str, default="val", help="what to evaluate on: " + ", ".join(task.splits))
    _add_switch(parser, "as_released", stored.get("as_released", False), "reproduce the oddities of the released code")
    _add_switch(parser, "evaluate_only", False, "do not train: evaluate --weights")
    _add_switch(parser, "check", False, "validate the data set's folder and exit")


def _add_switch(parser: ArgumentParser, name: str, default: bool, help_text: str) -> None:
    parser.add_argument(f"--{name}", action="store_true", default=default, help=help_text)


def run(options: Namespace) -> int | None:
    task_class = _task(options.task)
    given = options[options.task]
    if given.data is None:
        raise UsageError(f"finetune {options.task} needs --data, the data set's folder")
    settings = {name: given[name] for name in (*task_class.sections(), "data", "as_released", "tokenizer")}
    weights = os.path.abspath(given.weights) if given.weights and os.path.exists(given.weights) else given.weights
    task = task_class(**settings, weights=weights)
    if given.split not in task.splits:
        raise UsageError(f"--split must be one of {', '.join(task.splits)}; got {given.split}")
    if given.check:
        return _check(task) if is_first_rank() else None
    if not given.evaluate_only:
        _train(task, given)
    elif is_first_rank():
        _evaluate_only(task, given)
    return None


def _check(task: Finetune[Any, Any]) -> int:
    report = task.check(task.splits)
    print(report)
    return 1 if report.problems else 0


def _train(task: Finetune[Any, Any], given: Namespace) -> None:
    from reserve.model.run_checkpoints import list_checkpoints
    from reserve.report import write_report
    from reserve.train.evaluate import evaluate_run

    if given.resume is not None and given.out is not None:
        raise UsageError("--resume continues a run in its own folder; leave out --out")
    out = given.resume or given.out
    if out is None:
        raise UsageError(f"finetune {task.name} needs --out (or --resume RUN)")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is not a folder")
    resuming = given.resume is not None or bool(list_checkpoints(out))
    if given.resume is None and resuming and not resumes(given.auto_resume, out):
        raise UsageError(f"{out} already holds a run: continue it with --resume {out}, or choose another --out")
    if not resuming:
        task = task.fitted_to_data()
    optimizer = _optimizer(task, given)
    fit_with_report(task, out, FitConfig(optimizer=optimizer, train=given.train))
    if not is_first_rank():
        return
    print(list_checkpoints(out)[-1].path)
    print(evaluate_run(out, [str(task.data)], split=given.split))
    write_report(out)


def _evaluate_only(task: Finetune[Any, Any], given: Namespace) -> None:
    from reserve.tasks.task import HeldOut
    from reserve.train.evaluate import evaluate_start

    if task.weights is None or given.out is None:
        raise UsageError("--evaluate_only needs --weights and --out")
    given.out.mkdir(parents=True, exist_ok=True)
    held_out = HeldOut([str(task.data)], given.out / task.held_out_folder, split=given.split)
    print(evaluate_start(task.fitted_to_data(), given.out, FitConfig(train=given.train), held_out))


def _optimizer(task: Finetune[Any, Any], given: Namespace) -> OptimizerConfig:
    """The optimiser's settings, with the steps that the epochs take unless steps are given."""
    from reserve.tasks.finetuning import schedule

    fixed = given.resume is not None or given.optimizer.num_train_steps != OptimizerConfig().num_train_steps
    if given.epochs is None and fixed:
        return given.optimizer
    epochs = task.epochs if given.epochs is None else given.epochs
    if not epochs > 0:
        raise UsageError(f"--epochs must be above 0; got {epochs:g}")
    return schedule(given.optimizer, task.count_examples(), given.train.batch_size, epochs)


def _task(name: str) -> type[Finetune[Any, Any]]:
    from reserve.tasks import find_task

    return find_task(name)  # type: ignore[return-value]


def _sizes(arguments: Sequence[str]) -> ModelConfig:
    """The sizes of the trunk: those named, or those of the weights to start from."""
    from reserve.tasks.finetuning import stored_sizes

    named = named_options(arguments, "weights", "sizes", "resume")
    sizes = stored_sizes(named["weights"][-1]) if named["weights"] else None
    if named["sizes"]:
        if sizes is not None:
            raise UsageError(f"{named['weights'][-1]} has its own config.json; leave out --sizes")
        return load_model_config(config_file(named["sizes"][-1]))
    if sizes is None and named["weights"] and not named["resume"]:
        raise UsageError(
            f"{named['weights'][-1]} does not say what model it holds; give --sizes base_resadapt, large_resadapt, "
            "base, large or a YAML file"
        )
    return sizes or ModelConfig()
