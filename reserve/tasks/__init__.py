"""What a model is trained for: one module or package a task, found by name."""

from __future__ import annotations

import importlib
from typing import Any

from reserve.tasks.task import Task

TASKS = {
    "pretrain": "reserve.tasks.pretrain.task:Pretrain",
    "kinetics600": "reserve.tasks.kinetics600.task:Kinetics600",
    "tvqa": "reserve.tasks.tvqa.task:Tvqa",
    "vcr": "reserve.tasks.vcr.task:Vcr",
}
"""Where each task is, as module:class; imported when it is asked for."""


def find_task(name: str) -> type[Task[Any, Any]]:
    """The task called `name`. Raises ValueError naming those there are."""
    if name not in TASKS:
        raise ValueError(f"there is no task {name!r}; there are {', '.join(sorted(TASKS))}")
    module, _, attribute = TASKS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
