"""How much of a training run is spent waiting for data, and what loading costs beside that.

Trains the tiny preset, as `make demo` does, on prepared videos, and on one batch that is repeated from memory: the
same steps without any loading. Loading processes take time from the cores that train, too, so the ratio of the two
rates says more than the time that steps wait. Every run is a process of its own, so that it starts as a run does; the
two kinds take turns.

`python -m benchmarks.waiting --videos FOLDER --save` stores the result in benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.shards.preparing import store_result
from reserve.config import SECTIONS, Config, TrainConfig
from reserve.config.load import config_file, read_settings
from reserve.tasks.pretrain.dataset import Example
from reserve.tasks.pretrain.task import Pretrain
from reserve.train.fit import fit

FILE = "waiting.json"
LOADED, REPEATED = "loaded", "repeated"
KINDS = (LOADED, REPEATED)
WARM_UP = 5
"""Steps that fill caches, excluded from the rates and from the share of waiting that leaves out the start."""


@dataclass(frozen=True)
class PreparedPretrain(Pretrain):
    """Pretraining on videos that are prepared in the folder `prepared`."""

    prepared: Path = Path()

    def prepare(self, run: Path, config: TrainConfig) -> None: ...

    def training_set(self, run: Path, config: TrainConfig) -> Any:
        return super().training_set(self.prepared, config)


class RepeatedExample:
    """A training set of one example, which is loaded once."""

    def __init__(self, example: Example) -> None:
        self.example = example

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, key: tuple[int, int]) -> Example:
        return self.example


class RepeatedPretrain(PreparedPretrain):
    """Pretraining on the first examples alone, which are loaded and made a batch once."""

    def training_set(self, run: Path, config: TrainConfig) -> Any:
        examples = super().training_set(run, config)
        first = [examples[0, index] for index in range(config.batch_size)]
        # The settings of a task are its fields, so it cannot have one for this.
        object.__setattr__(self, "batch", super().collate(first))
        return RepeatedExample(first[0])

    def collate(self, examples: Sequence[Example]) -> Any:
        return vars(self)["batch"]


def tiny(steps: int, workers: int) -> Config:
    """The demo's settings with a line of metrics a step."""
    config = Config(**read_settings([config_file("tiny")], SECTIONS, {}))
    train = replace(config.train, log_every=1, num_workers=workers, checkpoint_every=steps)
    optimizer = replace(config.optimizer, num_train_steps=steps, num_warmup_steps=min(40, steps))
    return replace(config, train=train, optimizer=optimizer)


def run_steps(kind: str, prepared: Path, config: Config) -> list[dict[str, float]]:
    """The lines of metrics of a run, in this process."""
    task: PreparedPretrain
    if kind == LOADED:
        task = PreparedPretrain(data=config.data, model=config.model, prepared=prepared)
    else:
        task = RepeatedPretrain(data=config.data, model=config.model, prepared=prepared)
        config = replace(config, train=replace(config.train, num_workers=0))
    with tempfile.TemporaryDirectory() as run:
        fit(task, Path(run), config)
        return [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]


def summary(lines: Sequence[dict[str, float]], batch_size: int) -> dict[str, float]:
    """Shares of the time of all steps spent waiting, with the start and without it, and examples/s without it."""

    def share(part: Sequence[dict[str, float]]) -> float:
        return sum(line["seconds_waiting"] for line in part) / sum(seconds(line) for line in part)

    def seconds(line: dict[str, float]) -> float:
        return batch_size / line["examples_per_second"]

    steady = lines[WARM_UP:]
    return {
        "share_waiting": share(steady),
        "share_waiting_with_start": share(lines),
        "seconds_waiting_for_first_batch": lines[0]["seconds_waiting"],
        "examples_per_second": batch_size * len(steady) / sum(seconds(line) for line in steady),
        "steps": len(lines),
    }


def measure(prepared: Path, rounds: int, steps: int, workers: int, threads: int | None) -> dict[str, Any]:
    """The summaries of all runs, and the medians of the rounds."""
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for turn in range(rounds):
        for kind in KINDS if turn % 2 == 0 else reversed(KINDS):
            found[kind].append(_in_own_process(kind, prepared, steps, workers, threads))
            print(json.dumps({"round": turn, "kind": kind, **found[kind][-1]}), flush=True)
    medians = {
        name: statistics.median(run[name] for run in found[LOADED])
        for name in (
            "share_waiting",
            "share_waiting_with_start",
            "seconds_waiting_for_first_batch",
            "examples_per_second",
        )
    }
    ratios = [
        one["examples_per_second"] / other["examples_per_second"]
        for one, other in zip(found[LOADED], found[REPEATED], strict=True)
    ]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "workers": workers,
        "threads": threads,
        "steps": steps,
        **medians,
        "examples_per_second_repeated": statistics.median(run["examples_per_second"] for run in found[REPEATED]),
        "ratio": statistics.median(ratios),
        "rounds": found,
    }


def _in_own_process(kind: str, prepared: Path, steps: int, workers: int, threads: int | None) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.waiting", "--videos", str(prepared), "--one", kind]
    command += ["--steps", str(steps), "--workers", str(workers)]
    # As the command line sets it; OpenMP reads it when torch is imported.
    environment = os.environ | {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.waiting", description=__doc__)
    parser.add_argument(
        "--videos", type=Path, required=True, help="a folder of videos, such as `reserve demo-data` makes"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=120, help="training steps of a run")
    parser.add_argument("--workers", type=int, default=1, help="loading processes (default: 1, as the demo has)")
    parser.add_argument("--threads", type=int, help="torch's threads; by default as many as cores")
    parser.add_argument("--one", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--save", action="store_true", help="store the result in benchmarks/results/MACHINE")
    options = parser.parse_args(arguments)
    if options.steps <= WARM_UP:
        parser.error(f"--steps must be above the {WARM_UP} that warm up; got {options.steps}")
    config = tiny(options.steps, options.workers)
    if options.one:
        lines = run_steps(options.one, options.videos, config)
        print(json.dumps(summary(lines, config.train.batch_size)))
        return
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder)
        Pretrain.of(config, [options.videos]).prepare(prepared, config.train)
        start = time.perf_counter()
        result = measure(prepared, options.rounds, options.steps, options.workers, options.threads)
        result["seconds_measured"] = time.perf_counter() - start
    print(json.dumps({name: value for name, value in result.items() if name != "rounds"}, indent=1))
    if options.save:
        store_result(FILE, result)


if __name__ == "__main__":
    main()
