"""A run's config.yaml: its task, its settings and where its data is, for people, for resuming and for evaluating."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reserve.config import FitConfig
from reserve.config.load import RUN_CONFIG, build_section, plain_values, read_yaml, write_yaml
from reserve.tasks import Task, find_task

DEFAULT_TASK = "pretrain"
"""The task of runs older than the setting."""


def write_run_settings(run: Path, task: Task[Any, Any], config: FitConfig) -> None:
    """Writes `run`/config.yaml, a configuration file like any other.

    Paths in it are absolute, so that the run can be resumed from any folder. The run's own folder is not in it: a run
    can be moved or copied.
    """
    run.mkdir(parents=True, exist_ok=True)
    write_yaml(run / RUN_CONFIG, run_settings(task, config))


def run_settings(task: Task[Any, Any], config: FitConfig) -> dict[str, Any]:
    """What config.yaml holds: the task's name and settings and the trainer's, as plain values."""
    trainer = {name: plain_values(getattr(config, name)) for name in ("optimizer", "train")}
    return {"task": task.name, **task.settings(), **trainer}


def read_run(run: Path) -> tuple[Task[Any, Any], FitConfig]:
    """The task and the settings in a run's config.yaml.

    Raises ValueError where `run` has none, or naming what is wrong in it.
    """
    path = run / RUN_CONFIG
    if not path.is_file():
        raise ValueError(f"{run} is not a run's folder: it has no {RUN_CONFIG}")
    settings = read_yaml(path)
    name = settings.get("task", DEFAULT_TASK)
    if not isinstance(name, str):
        raise ValueError(f"{path}: task must be a name; got {name!r:.80}")
    try:
        task = find_task(name)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    missing = [name for name in (*task.sections(), "optimizer", "train") if name not in settings]
    if missing:
        raise ValueError(f"{path} lacks the section {missing[0]}")
    fit_settings = {name: settings[name] for name in ("optimizer", "train")}
    return task.from_settings(settings, f"{path}:"), build_section(FitConfig, fit_settings, f"{path}:")
