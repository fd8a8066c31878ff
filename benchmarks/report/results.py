"""Loads the results of pytest-benchmark and step_lease as cases with their implementations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.interleaved import OURS
from benchmarks.report import steps

RESULTS = Path(__file__).parents[1] / "results"


@dataclass(frozen=True)
class Timing:
    """One implementation of a case: seconds, and its other facts."""

    median: float
    low: float
    high: float
    fastest: float
    rounds: int
    info: dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A job that several implementations did in one run. `timings` has ours first, then the peers by median."""

    machine: str
    op: str
    group: str
    name: str
    timings: dict[str, Timing]

    @property
    def on_gpu(self) -> bool:
        return not self.label.startswith("CPU")

    @property
    def facts(self) -> dict[str, Any]:
        return self.timings[OURS].info

    @property
    def label(self) -> str:
        """The group without the op, for tables."""
        return self.group.removeprefix(f"{self.op}, ")

    def faster_than(self, peer: str, implementation: str = OURS) -> float:
        """The peer's median over that of `implementation`."""
        return self.timings[peer].median / self.timings[implementation].median

    def memory_ratio(self, peer: str, implementation: str = OURS) -> float | None:
        """The peer's extra memory over that of `implementation`; None unless both were measured."""
        theirs, ours = (self.timings[name].info.get("peak_extra_bytes") for name in (peer, implementation))
        return theirs / ours if theirs and ours else None


@dataclass(frozen=True)
class Machine:
    """A folder of results: the machine and its cases."""

    name: str
    runs: dict[str, dict[str, Any]]
    """By file, pytest-benchmark's record, with `cases` in place of its benchmarks."""
    cases: list[Case]

    @property
    def title(self) -> str:
        info = next(iter(self.runs.values()))["machine_info"]
        if info.get("gpu"):
            return info["gpu"]["name"]
        return f"{info['cpu']['brand_raw']}, {info['cpu']['count']} cores, no GPU"


def load(folder: Path = RESULTS) -> list[Machine]:
    """Every machine, GPUs first."""
    machines = [_machine(path) for path in sorted(folder.iterdir()) if path.is_dir()] if folder.is_dir() else []
    machines = [machine for machine in machines if machine.runs]
    return sorted(machines, key=lambda machine: not any(case.on_gpu for case in machine.cases))


def _machine(folder: Path) -> Machine:
    runs, cases = {}, []
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text("utf-8"))
        if "variants" in record:
            record = steps.as_record(record)
        if "benchmarks" not in record:
            continue
        found = list(_cases(folder.name, record.pop("benchmarks")))
        runs[path.stem] = record | {"cases": found}
        cases += found
    return Machine(folder.name, runs, cases)


def _cases(machine: str, benchmarks: list[dict[str, Any]]) -> Iterator[Case]:
    groups: dict[str, dict[str, Timing]] = {}
    for benchmark in benchmarks:
        stats, info = benchmark["stats"], benchmark["extra_info"]
        timing = Timing(stats["median"], stats["q1"], stats["q3"], stats["min"], stats["rounds"], info)
        groups.setdefault(benchmark["group"], {})[info["implementation"]] = timing
    for group, timings in groups.items():
        if OURS in timings:
            ordered = dict(sorted(timings.items(), key=lambda item: (item[0] != OURS, item[1].median)))
            info = timings[OURS].info
            yield Case(machine, info["op"], group, info["case"], ordered)
