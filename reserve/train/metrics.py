"""A run's metrics: metrics.jsonl, TensorBoard and other sinks, and a progress line on the screen."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from reserve.train.sinks import JsonLines, Sink, Sinks, TensorBoard
from reserve.train.sinks import read_metrics as read_metrics

METRICS_NAME = "metrics.jsonl"
EVALUATIONS_NAME = "evaluations.jsonl"
HELD_OUT_PREFIX = "heldout/"
"""Begins the names of an evaluation's figures in TensorBoard and W&B."""


class Metrics:
    """Writes each line of metrics to `folder`/metrics.jsonl, TensorBoard and `boards`, and shows it.

    A context manager. On a terminal a bar has the metrics `shown`, examples/s and the time left; elsewhere a line is
    printed. Lines after `first_step`, left by an interrupted run, are dropped, so that each step is there once. A value
    that is not finite becomes null in metrics.jsonl. What cannot be written does not end the run: it is logged, and
    counted as `failed_writes` of the next line.
    """

    def __init__(
        self,
        folder: Path,
        *,
        first_step: int,
        total_steps: int,
        batch_size: int,
        shown: Sequence[str] = ("loss",),
        boards: Sequence[Sink] = (),
    ) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.batch_size, self.total_steps, self.shown = batch_size, total_steps, tuple(shown)
        boards = [TensorBoard(folder / "tensorboard", first_step=first_step), *boards]
        self._sinks = Sinks([JsonLines(folder / METRICS_NAME, first_step=first_step), *boards])
        self._evaluations = Sinks(
            [JsonLines(folder / EVALUATIONS_NAME, first_step=first_step), *(_Prefixed(board) for board in boards)]
        )
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
        with suppress(OSError):  # The terminal may be gone.
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._progress.stop()
        self._evaluations.close(failed=error is not None)
        self._sinks.close(failed=error is not None)

    def advance(self) -> None:
        """One more step is done."""
        self._progress.advance(self._task)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the metrics of `step`, with the speed since the line before.

        `seconds_evaluating` of `values` does not count as time of the steps.
        """
        now = time.perf_counter()
        steps, spent = step - self._last_step, now - self._last - values.get("seconds_evaluating", 0.0)
        rate = steps * self.batch_size / spent
        self._last, self._last_step = now, step
        line = {
            **values,
            "examples_per_second": rate,
            "seconds_per_step": spent / steps,
            "seconds": now - self._start,
        }
        failed = self._sinks.failed_writes + self._evaluations.failed_writes
        if failed:
            line["failed_writes"] = failed
        self._sinks.write(step, line)
        losses = "  ".join(f"{name} {values[name]:.3f}" for name in self.shown)
        status = f"{losses}  {rate:.1f} examples/s"
        self._progress.update(self._task, status=status)
        if not self._console.is_terminal:
            left = (self.total_steps - step) * self.batch_size / rate
            # Where stderr is a file on the disk that is full.
            with suppress(OSError):
                print(f"step {step}/{self.total_steps}  {status}  {left:.0f} s left", file=sys.stderr, flush=True)

    def log_evaluation(self, step: int, figures: Mapping[str, float], seconds: float) -> None:
        """Writes the figures of an evaluation that took `seconds`, to `folder`/evaluations.jsonl and the boards."""
        self._evaluations.write(step, {**figures, "seconds": seconds})


class _Prefixed:
    """A board whose names begin with HELD_OUT_PREFIX. Who has made it closes it."""

    def __init__(self, board: Sink) -> None:
        self._board = board

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._board.write(step, {f"{HELD_OUT_PREFIX}{name}": value for name, value in values.items()})

    def close(self, *, failed: bool) -> None:
        pass


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

    def log_evaluation(self, step: int, figures: Mapping[str, float], seconds: float) -> None:
        pass
