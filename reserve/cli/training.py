"""What the commands that train have in common."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reserve.config import FitConfig
    from reserve.tasks.task import Task


def is_first_rank() -> bool:
    """Whether this process is the one that evaluates, prints and writes the page; torchrun sets RANK."""
    return os.environ.get("RANK", "0") == "0"


def fit_with_report(task: Task[Any, Any], run: Path, config: FitConfig) -> Path:
    """Trains as `fit` does, and keeps the run's report.html up to date meanwhile."""
    from reserve.report.live import LiveReport
    from reserve.train.fit import fit

    with LiveReport(run, writes=is_first_rank()) as report:
        return fit(task, run, config, on_saved=report)
