"""The measured half of docs/scaling.md: losses and checkpoints of every way to share a step, from stored results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.report.results import RESULTS
from benchmarks.scaling import saves
from benchmarks.scaling.runs import FILE, LOSS_TOLERANCE, WEIGHTS_TOLERANCE, Run
from reserve_kernels.bench.report import duration, markdown


def stored_sections(folder: Path = RESULTS) -> list[str]:
    """Markdown of what `make scaling` stored on each machine."""
    sections = {FILE: _ways, saves.FILE: _saves}
    return [
        section(path.parent.name, json.loads(path.read_text("utf-8")))
        for name, section in sections.items()
        for path in sorted(folder.glob(f"*/{name}"))
    ]


def _saves(machine: str, found: Mapping[str, Any]) -> str:
    rows = [
        (
            row["model"],
            f"{row['parameters'] / 1e6:.1f} M",
            duration(row["held"]["before"]),
            duration(row["held"]["beside"]),
            duration(row["complete"]["beside"]),
        )
        for row in found["rows"]
    ]
    head = ("model", "parameters", "held, before the next step", "held, beside the training", "until it is complete")
    rounds = found["rows"][0]["rounds"]
    return f"""## Measured: how long a save holds the step

With `train.async_checkpoints false` a checkpoint is written before the next step, otherwise beside the training: then
the step is held only while the state is copied. One process, no step running beside the write ({machine}); medians of
{rounds} saves of each way, in turn.

{markdown(head, rows)}
"""


def _ways(machine: str, found: Mapping[str, Any]) -> str:
    rows, resumed = found["rows"], found["resumed"]
    curve = rows[0]["losses"]
    widest = {
        precision: max(row["loss"] for row in rows if row["run"]["precision"] == precision)
        for precision in LOSS_TOLERANCE
    }
    return f"""## Measured: one step on any number of ranks

A small model on random examples, {found["steps"]} steps with a batch of {found["batch"]} on 1, 2 and 4 gloo ranks of
one machine ({machine}, torch {found["torch"]}). The loss of one process falls from {curve[0]:.4f} to {curve[-1]:.4f};
chance is {found["chance"]:.4f}. Each row is compared with one process that has the same candidates: the whole batch, or
without GradCache the same micro-batches; in bfloat16 with DDP on as many ranks, since each rank rounds its part of the
vectors' gradients ([how much](kernels/contrastive.md#ranks)). "Loss" is the largest difference of a loss in
{found["steps"]} steps, "weights" and "moments" are the distances between the last checkpoints, relative to the way from
the first checkpoint (step {found["saved_at"]}) to the last. Sums over ranks are rounded in another order; Adam turns
that into steps of weights whose gradients are near zero.

Runs are accepted up to a difference of {LOSS_TOLERANCE["float32"]:g} in float32
and {LOSS_TOLERANCE["bfloat16"]:g} in bfloat16, and a distance of {WEIGHTS_TOLERANCE["float32"]:g} and
{WEIGHTS_TOLERANCE["bfloat16"]:g}; the largest differences are {widest["float32"]:.1e} and {widest["bfloat16"]:.1e}.

{markdown(ROW_HEAD, [_row(row) for row in rows])}

A checkpoint of one way, resumed under another, from step {found["saved_at"]} on:

{markdown(("saved by", "resumed by", "loss", "weights", "moments"), [_resumed(row) for row in resumed])}

Which spans of text are predicted is chosen within a device's micro-batch, as in the release. Here all are; a run that
leaves some out draws others on another number of devices.
"""


ROW_HEAD = ("ranks", "parallel", "accumulate", "grad_cache", "other settings", "loss", "weights", "moments")


def _row(row: Mapping[str, Any]) -> tuple[object, ...]:
    run = Run(**row["run"])
    grad_cache = "yes" if run.grad_cache else "no"
    found = ("reference",) * 3 if run == run.reference else _distances(row)
    return (run.ranks, _parallel(run), run.accumulate, grad_cache, _others(run), *found)


def _resumed(row: Mapping[str, Any]) -> tuple[object, ...]:
    before, after = (_described(Run(**row[name])) for name in ("before", "after"))
    return before, after, *_distances(row)


def _distances(row: Mapping[str, Any]) -> tuple[str, ...]:
    if row["identical"]:
        return ("identical",) * 3
    return tuple(f"{row[name]:.1e}" for name in ("loss", "weights", "moments"))


def _parallel(run: Run) -> str:
    return "one process" if run.ranks == 1 else run.parallel


def _others(run: Run) -> str:
    plain = Run()
    names = ("fsdp_ranks", "compile", "recompute_layers", "precision")
    return ", ".join(f"`{name} {_value(run, name)}`" for name in names if getattr(run, name) != getattr(plain, name))


def _value(run: Run, name: str) -> str:
    return str(getattr(run, name)).lower()


def _described(run: Run) -> str:
    ranks = "one process" if run.ranks == 1 else f"{run.ranks} ranks, {run.parallel}"
    parts = f"accumulate {run.accumulate}, grad_cache" if run.grad_cache else ""
    return ", ".join(part for part in (ranks, parts, _others(run)) if part)
