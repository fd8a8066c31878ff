"""Runs as processes of their own, two at a time, of which finished ones are kept."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.learning.provenance import provenance
from reserve.fs import write_text_atomic

SET_ASIDE = ".old"
"""What the name of a finished run that gave way to one of other settings goes on with."""
SETTINGS, RESULT, LOG = "settings.json", "result.json", "log.txt"
AT_ONCE = 2
_TAIL = 2000


@dataclass(frozen=True)
class Run:
    """What `python -m MODULE --one FOLDER` does, with the `settings` that it finds there, JSON values by name."""

    folder: Path
    settings: Mapping[str, Any]

    @property
    def is_same(self) -> bool:
        """Whether the folder holds a run, finished or not, of these settings."""
        path = self.folder / SETTINGS
        return path.exists() and json.loads(path.read_text("utf-8")) == json.loads(json.dumps(dict(self.settings)))

    @property
    def is_finished(self) -> bool:
        return self.is_same and (self.folder / RESULT).exists()

    def result(self) -> dict[str, Any]:
        return json.loads((self.folder / RESULT).read_text("utf-8"))


def finish_all(module: str, runs: Sequence[Run], *, again: bool = False) -> list[dict[str, Any]]:
    """The results of all runs, in order. Those that are finished with the same settings are not repeated but `again`.

    Raises SystemExit naming the logs of runs that failed, after the others have ended.
    """
    for run in runs:
        if run.folder.exists() and (again or not run.is_same):
            _set_aside(run.folder)
        run.folder.mkdir(parents=True, exist_ok=True)
        write_text_atomic(run.folder / SETTINGS, json.dumps(dict(run.settings), indent=1))
    waiting = [run for run in runs if not run.is_finished]
    print(f"{len(runs)} runs, {len(runs) - len(waiting)} of them finished before", flush=True)
    lock, done = threading.Lock(), 0

    def finish(run: Run) -> str | None:
        nonlocal done
        start = time.monotonic()
        failed = _finish(module, run)
        with lock:
            done += 1
            state = "failed" if failed else "done"
            print(f"{done} of {len(waiting)}: {run.folder.name} {state}, {time.monotonic() - start:.0f} s", flush=True)
        return failed

    with ThreadPoolExecutor(AT_ONCE) as pool:
        failures = [failed for failed in pool.map(finish, waiting) if failed]
    if failures:
        raise SystemExit("\n".join(failures))
    return [run.result() for run in runs]


def _set_aside(folder: Path) -> None:
    """Makes place for a run. What is finished is kept beside it, since it took long; what is not is removed."""
    if not (folder / RESULT).exists():
        shutil.rmtree(folder)
        return
    number = next(n for n in itertools.count(1) if not folder.with_name(f"{folder.name}{SET_ASIDE}{n}").exists())
    folder.rename(folder.with_name(f"{folder.name}{SET_ASIDE}{number}"))


def _finish(module: str, run: Run) -> str | None:
    """Why a run failed, None if it has its result."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    log = run.folder / LOG
    with log.open("w") as output:
        command = [sys.executable, "-m", module, "--one", str(run.folder)]
        status = subprocess.run(command, env=environment, stdout=output, stderr=output, check=False).returncode
    if status == 0 and run.is_finished:
        return None
    return f"{run.folder} ended with status {status}; the end of {log}:\n{log.read_text('utf-8', 'replace')[-_TAIL:]}"


def run_one(folder: Path, work: Callable[[Path, dict[str, Any]], dict[str, Any]]) -> None:
    """Writes what `work(folder, settings)` returns as the result of the run in a folder."""
    settings = json.loads((folder / SETTINGS).read_text("utf-8"))
    start = time.monotonic()
    result = work(folder, settings)
    result |= {"settings": settings, "seconds": time.monotonic() - start, "provenance": provenance()}
    write_text_atomic(folder / RESULT, json.dumps(result, indent=1))
