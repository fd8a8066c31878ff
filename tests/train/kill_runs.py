"""Kills training runs with SIGKILL at random instants, resumes them and compares them with runs that were never killed.

    python -m tests.train.kill_runs --kills 24 --seed 1 --out build/kill-test.json

Linux only: processes are found in /proc.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reserve.model.run_checkpoints import list_checkpoints
from reserve.train.metrics import read_metrics
from tests.train.compare_runs import Comparison
from tests.train.start_runs import STEPS, Launcher, Running, log_of, pretraining_variants

WAYS = ("setting up", "saving", "stepping", "alone")
"""When runs are killed, in turn. "alone" kills a single process of the run, in set-up or later; the others kill all."""

SET_UP, STEP, SAVE, ALONE = "before the first step", "between saves", "while saving", "of a single process"
"""Where a kill landed."""

PATIENCE = 1800.0
"""Seconds until a run counts as hanging: far more than the slowest machine takes."""

_PARTIAL = re.compile(r"step_\d+\.partial")


@dataclass(frozen=True)
class Durations:
    """Seconds of a run that nobody kills: until its first save, of a step and its save, and of the shortest save."""

    first_save: float
    step: float
    save: float


@dataclass
class Outcome:
    """What became of the runs of a launcher. `kills` counts them by where they landed."""

    name: str
    comparison: Comparison
    runs: int = 0
    kills: Counter[str] = field(default_factory=Counter)

    def summary(self) -> dict[str, Any]:
        """What is printed and kept."""
        return {
            "runs": self.runs,
            "kills": self.kills.total(),
            **{f"kills {where}": self.kills[where] for where in (SET_UP, STEP, SAVE, ALONE)},
            "losses compared": self.comparison.losses,
            "tensors compared": self.comparison.tensors,
            "differences": len(self.comparison.differences),
        }


def kill_runs(name: str, launcher: Launcher, kills: int, folder: Path, rng: random.Random) -> Outcome:
    """Kills runs until `kills` kills have hit, resumes each run to its end and compares it with one never killed.

    Raises AssertionError where a run hangs, or fails without being killed.
    """
    folder.mkdir(parents=True)
    reference = folder / "reference"
    durations = _undisturbed(launcher, reference)
    outcome = Outcome(name, Comparison(reference))
    while outcome.kills.total() < kills:
        run = folder / f"run-{outcome.runs}"
        run.mkdir()
        if (reference / "prepared").exists() and not launcher.prepares:
            shutil.copytree(reference / "prepared", run / "prepared")
        outcome.runs += 1
        for starts in itertools.count():
            running = launcher.start(run, starts)
            killed = None
            try:
                if (number := outcome.kills.total()) < kills:
                    # If a process that prepares a video dies alone, the video is skipped, and the data is another.
                    way = WAYS[number % (len(WAYS) - launcher.prepares)]
                    spared = {running.pid} if launcher.supervised else set()
                    killed = _kill(running, run, way, spared, durations, rng)
                else:
                    _finish(running, run)
            finally:
                _kill_all(run)
            if killed is None:
                break
            outcome.kills[killed] += 1
            # Steps after the last checkpoint are done again, but their losses count too.
            outcome.comparison.compare_losses(run)
        outcome.comparison.compare_finished(run)
        shutil.rmtree(run)
    return outcome


def _undisturbed(launcher: Launcher, run: Path) -> Durations:
    """Runs to the end without a kill, and measures."""
    run.mkdir()
    start, first_save, saves = time.monotonic(), 0.0, []
    running = launcher.start(run, 0)
    try:
        while running.status() is None:
            if partial := _partial_checkpoints(run):
                begin = time.monotonic()
                first_save = first_save or begin - start
                while partial & _partial_checkpoints(run):
                    _check_patience(start, run)
                saves.append(time.monotonic() - begin)
            _check_patience(start, run)
            time.sleep(0.001)
        steps = time.monotonic() - start - first_save
        _finish(running, run)
    finally:
        _kill_all(run)
    return Durations(first_save, steps / STEPS, min(saves, default=0.0))


def _kill(
    running: Running, run: Path, way: str, spared: set[int], durations: Durations, rng: random.Random
) -> str | None:
    """Kills a run and waits until its processes are gone. Returns where the kill landed, None if it came too late.

    `spared` are the processes that are not killed alone.
    """
    partial_before, resumed_at = _partial_checkpoints(run), _last_step(run)
    if way == "saving":
        _wait_until(lambda: _partial_checkpoints(run) - partial_before, running, run)
        time.sleep(rng.uniform(0, 0.8 * durations.save))
    elif way == "stepping" or (way == "alone" and rng.random() < 0.5):
        saves = rng.randrange(1, 4)
        _wait_until(lambda: _last_step(run) >= resumed_at + saves, running, run)
        time.sleep(rng.uniform(0, durations.step))
    else:
        end = time.monotonic() + rng.uniform(0, durations.first_save)
        _wait_until(lambda: time.monotonic() > end or _last_step(run) > resumed_at, running, run)
    if running.status() is not None:
        _finish(running, run)
        return None
    victims = sorted(set(_processes(run)) - spared)
    if way == "alone" and victims:
        with suppress(ProcessLookupError):
            os.kill(rng.choice(victims), signal.SIGKILL)
        # Each of the others must end by itself, at its own end where it can do without the one that was killed.
        _wait_for_the_end(running, run)
        return ALONE
    _kill_all(run)
    _wait_for_the_end(running, run)
    if _partial_checkpoints(run) - partial_before:
        return SAVE
    metrics = run / "metrics.jsonl"
    logged = read_metrics(metrics) if metrics.exists() else []
    return STEP if any(line["step"] > resumed_at for line in logged) else SET_UP


def _wait_until(condition: Callable[[], object], running: Running, run: Path) -> None:
    """Waits for an instant in a run, or for the end of the run if it comes first."""
    start = time.monotonic()
    while running.status() is None and not condition():
        _check_patience(start, run)
        time.sleep(0.001)


def _last_step(run: Path) -> int:
    return max((checkpoint.step for checkpoint in list_checkpoints(run)), default=0)


def _partial_checkpoints(run: Path) -> set[tuple[str, int]]:
    """Name and inode of each checkpoint that is being written, or was when the run was killed."""
    with suppress(FileNotFoundError):
        return {(e.name, e.inode()) for e in os.scandir(run / "checkpoints") if _PARTIAL.fullmatch(e.name)}
    return set()


def _finish(running: Running, run: Path) -> None:
    """Waits for the end of a run that was not killed. Raises AssertionError if it failed."""
    _wait_for_the_end(running, run)
    if running.status():
        raise AssertionError(
            f"{run} failed with status {running.status()}:\n{log_of(run).read_text('utf-8', 'replace')[-4000:]}"
        )


def _wait_for_the_end(running: Running, run: Path) -> None:
    start = time.monotonic()
    while running.status() is None or any(_processes(run)):
        _check_patience(start, run)
        time.sleep(0.05)


def _check_patience(start: float, run: Path) -> None:
    if time.monotonic() - start > PATIENCE:
        raise AssertionError(f"{run}: the processes {sorted(_processes(run))} hang; see {log_of(run)}")


def _processes(run: Path) -> Iterator[int]:
    """The processes of a run, those without a parent and in sessions of their own too."""
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdecimal() and os.readlink(folder / "cwd") == str(run):
                yield int(folder.name)


def _kill_all(run: Path) -> None:
    while found := list(_processes(run)):
        for process in found:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def main() -> None:
    """Prints what became of the runs, writes it to --out, and exits with status 1 if anything differs."""
    parser = argparse.ArgumentParser(description="Kills training runs at random instants and compares their losses.")
    parser.add_argument("--kills", type=int, default=24, help="of all ways to run together")
    parser.add_argument("--seed", type=int, default=1, help="of the instants")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    parser.add_argument(
        "--save", action="store_true", help="the same in benchmarks/results/MACHINE, for docs/reliability.md"
    )
    options = parser.parse_args()
    # They need extras that the tests of this module do not.
    from benchmarks.__main__ import RESULTS, machine_name
    from benchmarks.report.reliability import KILLS_FILE
    from reserve.synthetic.videos import make_videos

    summaries, differences = {}, []
    with tempfile.TemporaryDirectory(prefix="kill-test-") as temporary:
        folder = Path(temporary).resolve()
        make_videos(folder / "videos", videos=4, held_out=1, seed=3, workers=1)
        variants = pretraining_variants(folder / "videos" / "train")
        for number, (name, launcher) in enumerate(variants.items()):
            kills = (options.kills + number) // len(variants)
            outcome = kill_runs(name, launcher, kills, folder / str(number), random.Random(f"{options.seed} {name}"))
            summaries[name] = outcome.summary()
            differences += outcome.comparison.differences
            print(f"{name}: {json.dumps(summaries[name])}", flush=True)
    total = {key: sum(summary[key] for summary in summaries.values()) for key in outcome.summary()}
    print(f"all: {json.dumps(total)}", *differences, sep="\n")
    for path in [options.out] * bool(options.out) + [RESULTS / machine_name("cpu") / KILLS_FILE] * options.save:
        path.parent.mkdir(parents=True, exist_ok=True)
        result = {"seed": options.seed, "all": total, **summaries}
        path.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    sys.exit(bool(differences))


if __name__ == "__main__":
    main()
