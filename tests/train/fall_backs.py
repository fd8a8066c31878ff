"""Does to real training runs what ends long ones, and records what became of each.

    python -m tests.train.fall_backs --save

Linux only. A few cases need leave to mount a file system; without it they are recorded as not run, with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reserve.train.metrics import read_metrics
from tests.helpers.ranks import free_ports
from tests.train.compare_runs import Comparison
from tests.train.start_runs import SETTINGS

PATIENCE = 600.0
"""Seconds until a run counts as hanging: far more than the slowest machine takes."""


class CannotRun(Exception):
    """A case that this machine does not allow; the message says why."""


@dataclass
class Found:
    """What became of a run: its exit status, or those of its ranks, the seconds from what was done to it until then,
    and what it said. `finished` is the run's folder if it came to its end, perhaps after a resume."""

    status: int | Sequence[int]
    seconds: float
    said: str
    finished: Path | None = None


@dataclass(frozen=True)
class Case:
    """`event` is what is done to a run, `answer` what it does then, each as a short phrase; `do` does it, and asserts
    that it is so."""

    event: str
    answer: str
    do: Callable[[Runs, Path], Found]


@dataclass
class Process:
    """A process of a run; what it prints is in the file `log`."""

    popen: subprocess.Popen[bytes]
    log: Path

    def printed(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def wait(self) -> int:
        """Its exit status. Raises AssertionError if it hangs."""
        try:
            return self.popen.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it hangs:\n{self.printed()[-4000:]}") from None

    def said(self, pattern: str) -> str:
        """The first line with `pattern`. Raises AssertionError where there is none."""
        for line in self.printed().splitlines():
            if re.search(pattern, line):
                return line
        raise AssertionError(f"no line has {pattern!r}:\n{self.printed()[-4000:]}")


@dataclass
class Runs:
    """Starts small pretraining runs on `videos`; `prepared` is what a run's preparation gives, to be copied."""

    videos: Path
    folder: Path
    started: list[Process] = field(default_factory=list)

    def start(
        self, run: Path, *settings: str, environment: dict[str, str] | None = None, launcher: Sequence[str] = ()
    ) -> Process:
        """Starts a run as one process, or by a launcher such as torchrun, with `SETTINGS` and more."""
        command = [sys.executable, *launcher, "-m", "reserve", "pretrain", *SETTINGS, "--train.batch_size=4"]
        command += ["--train.num_workers=0", "--videos", str(self.videos), "--out", str(run), *settings]
        log = self.folder / f"{run.name}-{len(self.started)}.log"
        path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
        variables = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path} | (environment or {})
        with log.open("wb") as output:
            # A process group of its own, to send signals to all of a run as schedulers do.
            popen = subprocess.Popen(command, stdout=output, stderr=output, env=variables, start_new_session=True)
        self.started.append(Process(popen, log))
        return self.started[-1]

    def start_ranks(self, run: Path, count: int, *settings: str) -> list[Process]:
        """Starts a run of `count` ranks as srun does: every rank by itself, without anything that watches over them."""
        (port,) = free_ports(1)
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
        return [
            self.start(run, *settings, environment=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in range(count)
        ]

    def finish(self, run: Path, *settings: str) -> Path:
        """Resumes a run to its end."""
        process = self.start(run, "--auto_resume", *settings)
        assert process.wait() == 0, process.printed()[-4000:]
        return run

    def end(self) -> None:
        """Kills what is left."""
        for process in self.started:
            with suppress(ProcessLookupError):
                os.killpg(process.popen.pid, signal.SIGKILL)
            process.popen.wait()
        self.started.clear()


def wait_for_step(run: Path, step: int, *processes: Process) -> None:
    """Waits until a run has logged a step. Raises AssertionError if one of its processes ends before."""
    metrics = run / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and any(line["step"] >= step for line in read_metrics(metrics)), *processes)


def wait_until(condition: Callable[[], object], *processes: Process) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        for process in processes:
            assert process.popen.poll() is None, process.printed()[-4000:]
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.002)


def run_case(case: Case, runs: Runs, name: str, comparison: Comparison) -> dict[str, Any]:
    """Runs a case; what it found, as it is kept."""
    result: dict[str, Any] = {"event": case.event, "answer": case.answer}
    before = (comparison.losses, comparison.tensors, len(comparison.differences))
    try:
        found = case.do(runs, runs.folder / name)
        if found.finished is not None:
            comparison.compare_finished(found.finished)
    except CannotRun as reason:
        return result | {"not run": str(reason)}
    finally:
        runs.end()
    return result | {
        "status": found.status if isinstance(found.status, int) else list(found.status),
        "seconds": round(found.seconds, 2),
        "said": _plain(found.said, runs.folder / name),
        "losses compared": comparison.losses - before[0],
        "tensors compared": comparison.tensors - before[1],
        "differences": len(comparison.differences) - before[2],
    }


def _plain(text: str, run: Path) -> str:
    """A message without what differs from run to run: folders, processes, the machine's name, times."""
    text = text.replace(str(run), "RUN").replace(socket.gethostname(), "HOST")
    text = re.sub(r"\bprocess \d+", "process PID", re.sub(r"\bpid \d+", "pid PID", text))
    return re.sub(r"\(\d{3,}\)", "(PID)", re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+:\d]*", "TIME", text))


def main() -> None:
    """Prints what became of each run, stores it with --save, and exits with status 1 if anything differs."""
    parser = argparse.ArgumentParser(description="Does to training runs what ends long ones, and records the outcome.")
    parser.add_argument("--only", nargs="+", help="names of cases")
    parser.add_argument("--save", action="store_true", help="in benchmarks/results/MACHINE, for docs/reliability.md")
    options = parser.parse_args()
    # They need extras that the tests of this module do not.
    from benchmarks.__main__ import RESULTS, machine_name
    from benchmarks.machine import describe
    from benchmarks.report.reliability import FALL_BACKS_FILE
    from reserve.synthetic.videos import make_videos
    from tests.train.fall_back_cases import CASES

    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="fall-backs-") as temporary:
        folder = Path(temporary).resolve()
        make_videos(folder / "videos", videos=4, held_out=1, seed=3, workers=1)
        runs = Runs(folder / "videos" / "train", folder)
        comparison = Comparison(runs.finish(folder / "reference"))
        for name, case in CASES.items():
            if options.only and name not in options.only:
                continue
            results[name] = run_case(case, runs, name, comparison)
            print(f"{name}: {json.dumps(results[name])}", flush=True)
    print(*comparison.differences, sep="\n")
    if options.save:
        path = RESULTS / machine_name("cpu") / FALL_BACKS_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**describe(), "cases": results}, indent=1) + "\n", "utf-8")
    sys.exit(bool(comparison.differences))


if __name__ == "__main__":
    main()
