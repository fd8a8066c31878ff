"""What went wrong in a run so far, counted from its metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MEANINGS = {
    "skipped_examples": "damaged samples, each replaced by another example",
    "replaced_workers": "loading processes that died and were replaced",
    "not_finite_steps": "steps whose loss or gradient was not finite",
    "failed_saves": "checkpoints that could not be written",
    "failed_evaluations": "evaluations on held-out data that failed",
    "failed_writes": "lines of metrics that could not be written at once",
    "alloc_retries": "times the GPU's memory was too fragmented and was given back",
}
"""Counters of metrics.jsonl, with what they count. Lines leave out those that are 0."""


@dataclass(frozen=True)
class Trouble:
    """`count` times something happened; `step` is that of the first line that counts it."""

    name: str
    meaning: str
    count: int
    step: int


def troubles(lines: Sequence[Mapping[str, float]]) -> list[Trouble]:
    """The counters that some lines have. Those that begin anew with each start of the run are added up."""
    found = []
    for name, meaning in MEANINGS.items():
        values = [(line["step"], value) for line in lines if math.isfinite(value := line.get(name, 0))]
        before, total, first = 0.0, 0.0, 0.0
        for step, value in values:
            if value > before and not total:
                first = step
            total += value - before if value >= before else value
            before = value
        if total > 0:
            found.append(Trouble(name, meaning, round(total), round(first)))
    return found
