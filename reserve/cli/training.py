"""What the commands that train have in common."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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

    report = LiveReport(run, writes=is_first_rank())
    try:
        return fit(task, run, config, on_saved=report)
    finally:
        with _undisturbed():
            report.close()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignores the signals that schedulers send more than once: what is left is short, and the exit status counts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.signal(number, signal.SIG_IGN) or signal.SIG_DFL for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
