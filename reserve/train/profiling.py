"""A profile of a few steps of a run: what each rank's CPU and GPU did, as a trace and as a table."""

from __future__ import annotations

import gzip
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from reserve.config import TrainConfig
from reserve.config.step_window import step_window
from reserve.fs import replacing, write_text_atomic
from reserve.train.distributed import Ranks

logger = logging.getLogger(__name__)

FOLDER = "profile"
MOST_ROWS = 60
"""Ops in the table, those with the largest time of their own."""


class StepProfiler:
    """Profiles the steps of the window train.profile_steps, FROM:TO: those between `FROM` and `TO` finished steps.

    A context manager. At the window's end, or where the run stops inside it, each rank writes two files into
    `run`/profile: step_FROM-rankR.json.gz, a trace for https://ui.perfetto.dev, and step_FROM-rankR.txt, a table of the
    ops. Outside the window it does nothing. What goes wrong is logged and ends the profile, not the run.
    """

    def __init__(self, run: Path, config: TrainConfig, ranks: Ranks) -> None:
        self._run, self._ranks = run, ranks
        self._window = step_window("train.profile_steps", config.profile_steps)
        self._profiler: Any = None

    def before(self, step: int) -> None:
        """Called with `step` steps finished: starts the profile in the window, where the run may have resumed."""
        if self._profiler is None and step in self._window:
            self._window = range(step, self._window.stop)
            self._attempt(self._start)

    def after(self, step: int) -> None:
        """Called with `step` steps finished: writes the profile where the window ends."""
        if self._profiler is not None and step not in self._window:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Stopped inside the window: what there is, is worth as much.
        if self._profiler is not None:
            self._stop()

    def _start(self) -> None:
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self._ranks.device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(activities=activities, record_shapes=True, profile_memory=True)
        self._profiler.start()

    def _stop(self) -> None:
        self._attempt(self._write)

    def _write(self) -> None:
        profiler, first = self._profiler, self._window.start
        if self._ranks.device.type == "cuda":
            torch.cuda.synchronize(self._ranks.device)  # so that the last step's kernels are in it
        profiler.stop()
        folder = self._run / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        name = f"step_{first:08d}-rank{self._ranks.rank}"
        trace = folder / f"{name}.json.gz"
        # Compressed here: PyTorch would do it through the folder for temporary files, which can be small.
        plain = folder / f".{name}.json"
        try:
            profiler.export_chrome_trace(str(plain))
            with replacing(trace) as temporary, plain.open("rb") as source, gzip.open(temporary, "wb") as target:
                shutil.copyfileobj(source, target)
        finally:
            plain.unlink(missing_ok=True)
        own = "self_cuda_time_total" if self._ranks.device.type == "cuda" else "self_cpu_time_total"
        table = profiler.key_averages().table(sort_by=own, row_limit=MOST_ROWS, max_name_column_width=80)
        write_text_atomic(folder / f"{name}.txt", f"{table}\n")
        self._end()
        logger.info("the profile from step %d on is in %s", first, trace)

    def _attempt(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            logger.warning("the profile of rank %d failed: %s; the run goes on", self._ranks.rank, error)
            self._end()

    def _end(self) -> None:
        """There is one profile a start of the run."""
        self._profiler, self._window = None, range(0)
