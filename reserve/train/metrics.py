"""A run's metrics: metrics.jsonl and TensorBoard on disk, a progress line on the screen."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from reserve.fs import write_text_atomic


class Metrics:
    """Writes each line of metrics to `folder`/metrics.jsonl and TensorBoard, and shows it.

    A context manager. On a terminal a bar has the metrics `shown`, examples/s and the time left; elsewhere a line is
    printed. Lines after `first_step`, left by an interrupted run, are dropped, so that each step is there once. A value
    that is not finite becomes null in metrics.jsonl.
    """

    def __init__(
        self, folder: Path, *, first_step: int, total_steps: int, batch_size: int, shown: Sequence[str] = ("loss",)
    ) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        from torch.utils.tensorboard import SummaryWriter

        self.batch_size, self.total_steps, self.shown = batch_size, total_steps, tuple(shown)
        path = folder / "metrics.jsonl"
        _drop_after(path, first_step)
        self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("train", total=total_steps, completed=first_step, status="")
        self._start = self._last = time.perf_counter()
        self._last_step = first_step

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        self._file.close()
        self._board.close()

    def advance(self) -> None:
        """One more step is done."""
        self._progress.advance(self._task)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the metrics of `step`, with the examples/s since the line before."""
        now = time.perf_counter()
        rate = (step - self._last_step) * self.batch_size / (now - self._last)
        self._last, self._last_step = now, step
        line = {"step": step, **values, "examples_per_second": rate, "seconds": now - self._start}
        self._file.write(_json_line(line))
        self._file.flush()
        for name, value in line.items():
            if name != "step":
                self._board.add_scalar(name, value, step)
        losses = "  ".join(f"{name} {values[name]:.3f}" for name in self.shown)
        status = f"{losses}  {rate:.1f} examples/s"
        self._progress.update(self._task, status=status)
        if not self._console.is_terminal:
            left = (self.total_steps - step) * self.batch_size / rate
            print(f"step {step}/{self.total_steps}  {status}  {left:.0f} s left", file=sys.stderr, flush=True)


class NoMetrics:
    """Takes the place of Metrics on all ranks but the first, and does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def advance(self) -> None:
        pass

    def log(self, step: int, values: Mapping[str, float]) -> None:
        pass


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a metrics.jsonl, null as NaN; damaged ones, such as one cut short by a crash, are left out."""
    lines = map(_numbers, path.read_text("utf-8", errors="replace").splitlines())
    return [line for line in lines if line is not None]


def _numbers(text: str) -> dict[str, float] | None:
    """A line of metrics.jsonl, or None where it is damaged."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or type(line.get("step")) is not int:
        return None
    values = {name: math.nan if value is None else value for name, value in line.items()}
    return values if all(isinstance(value, int | float) for value in values.values()) else None


def _json_line(values: Mapping[str, float]) -> str:
    """A line of metrics.jsonl. Strict JSON has no NaN, and a run that diverged must not make its log unreadable."""
    # Nine digits tell every float32 from every other, so equal lines are equal losses.
    rounded = {k: (v if k == "step" else float(f"{v:.9g}")) if math.isfinite(v) else None for k, v in values.items()}
    return json.dumps(rounded, allow_nan=False) + "\n"


def _drop_after(path: Path, step: int) -> None:
    """Drops the lines after `step`, and what is left of a line cut short."""
    if path.exists():
        kept = [line for line in read_metrics(path) if line["step"] <= step]
        write_text_atomic(path, "".join(map(_json_line, kept)))
