"""Trains one model under every way to share a step, on this machine's CPU, and compares it with one process.

`python -m benchmarks.scaling.runs --save` stores the table in benchmarks/results; docs/scaling.md shows it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.__main__ import RESULTS, machine_name
from benchmarks.scaling.train import BATCH, DATA, SAVED_AT, STEPS
from reserve.model.manifest import MODEL, read_manifest
from reserve.model.run_checkpoints import Checkpoint, list_checkpoints
from reserve.model.sharded import whole_tensor
from reserve.model.tensor_files import TensorFiles
from reserve.train.metrics import read_metrics

FILE = "scaling.json"
LOSS_TOLERANCE = {"float32": 2e-3, "bfloat16": 2e-2}
"""The largest difference of a loss from that of one process that is accepted."""
WEIGHTS_TOLERANCE = {"float32": 5e-2, "bfloat16": 0.5}
"""The same for the distance of the weights, relative to the way they went."""


@dataclass(frozen=True)
class Run:
    """A way to share a step: ranks, and settings of the section train."""

    ranks: int = 1
    parallel: str = "auto"
    accumulate: int = 1
    grad_cache: bool = False
    fsdp_ranks: int = 0
    compile: str = "none"
    recompute_layers: bool = False
    precision: str = "float32"

    @property
    def settings(self) -> dict[str, Any]:
        """As TrainConfig has them."""
        return {name: value for name, value in asdict(self).items() if name != "ranks"}

    @property
    def reference(self) -> Run:
        """One process with the same candidates: the batch whole, or in the same micro-batches.

        In bfloat16 DDP on as many ranks: each rank rounds its part of the vectors' gradients, so another number of
        ranks differs by more than a way to share does (docs/kernels/contrastive.md).
        """
        if self.precision == "bfloat16":
            return replace(self, parallel="ddp", fsdp_ranks=0)
        whole = self.grad_cache or self.accumulate == 1
        return Run(accumulate=1 if whole else self.accumulate)


def grid() -> list[Run]:
    """All rows of the table, references among them."""
    parts = [Run(), Run(accumulate=4), Run(grad_cache=True), Run(accumulate=4, grad_cache=True)]
    shared = [("ddp", 2), ("fsdp", 2), ("ddp", 4), ("fsdp", 4)]
    rows = [*parts, *(replace(part, ranks=ranks, parallel=mode) for mode, ranks in shared for part in parts)]
    rows += [Run(4, "fsdp", fsdp_ranks=2), Run(4, "fsdp", 2, True, fsdp_ranks=2, recompute_layers=True)]
    rows += [Run(2, mode, compile="layers") for mode in ("ddp", "fsdp")]
    rounded = [(2, "ddp", 0), (2, "fsdp", 0), (4, "ddp", 0), (4, "fsdp", 2)]
    rows += [Run(ranks, mode, fsdp_ranks=shared, precision="bfloat16") for ranks, mode, shared in rounded]
    return rows


MOVES = [
    (Run(), Run(4, "fsdp")),
    (Run(4, "fsdp"), Run()),
    (Run(2, "ddp"), Run(2, "fsdp")),
    (Run(2, "fsdp"), Run(4, "ddp")),
    (Run(4, "fsdp"), Run(4, "fsdp", fsdp_ranks=2)),
    (Run(4, "fsdp", fsdp_ranks=2), Run(2, "fsdp")),
    (Run(4, "ddp"), Run(2, "fsdp", 4, True)),
]
"""Checkpoints that are written under one way and resumed under another."""


def train(run: Run, folder: Path) -> float:
    """Trains in `folder`, from its last checkpoint if it has one; returns the seconds. Raises RuntimeError."""
    program = ["-m", "benchmarks.scaling.train", str(folder), json.dumps(run.settings)]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(run.ranks)]
    command = [sys.executable, *(torchrun if run.ranks > 1 else []), *program]
    start = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{run} failed:\n{done.stderr[-3000:]}")
    return time.perf_counter() - start


@dataclass(frozen=True)
class Outcome:
    """What a run gave: the loss of each step, and its first and last checkpoint's weights and moments."""

    losses: list[float]
    start: dict[str, torch.Tensor]
    end: dict[str, torch.Tensor]

    @classmethod
    def of(cls, folder: Path) -> Outcome:
        lines = read_metrics(folder / "metrics.jsonl")
        if [line["step"] for line in lines] != list(range(1, STEPS + 1)):
            raise RuntimeError(f"{folder} does not have each of the {STEPS} steps once")
        first, last = list_checkpoints(folder)
        return cls([line["loss"] for line in lines], _tensors(first), _tensors(last))


def _tensors(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The checkpoint's weights and moments as whole tensors."""
    manifest = read_manifest(checkpoint.path)
    with TensorFiles(checkpoint.path) as files:
        whole = {
            f"{part}/{name}": whole_tensor(files, stored)
            for part, own in manifest.tensors.items()
            for name, stored in own.items()
        }
    return {name: tensor for name, tensor in whole.items() if tensor.is_floating_point()}


def compare(ours: Outcome, reference: Outcome) -> dict[str, Any]:
    """The largest difference of a loss, and how far the checkpoint is from the reference's.

    The distance of all weights, and of all moments, is relative to the way they went between the two checkpoints.
    """
    if ours.end.keys() != reference.end.keys():
        raise RuntimeError(f"the checkpoints hold different tensors: {ours.end.keys() ^ reference.end.keys()}")
    weights = {name for name in ours.end if name.startswith(f"{MODEL}/")}
    return {
        "loss": max(abs(a - b) for a, b in zip(ours.losses, reference.losses, strict=True)),
        "identical": ours.losses == reference.losses
        and all(torch.equal(ours.end[name], reference.end[name]) for name in ours.end),
        "weights": _distance(weights, ours, reference),
        "moments": _distance(ours.end.keys() - weights, ours, reference),
    }


def _distance(names: set[str], ours: Outcome, reference: Outcome) -> float:
    apart = sum(float((ours.end[name].double() - reference.end[name].double()).square().sum()) for name in names)
    gone = sum(float((reference.end[name].double() - reference.start[name].double()).square().sum()) for name in names)
    return (apart / gone) ** 0.5


def measure(rows: Sequence[Run], moves: Sequence[tuple[Run, Run]], work: Path) -> dict[str, Any]:
    """Trains everything below `work` and returns the table."""
    outcomes: dict[Run, Outcome] = {}
    table = []
    folders = {run: work / f"run_{number}" for number, run in enumerate(rows)}
    for run in rows:
        taken = train(run, folders[run])
        outcomes[run] = Outcome.of(folders[run])
        row = {"run": asdict(run), "seconds": taken, "losses": outcomes[run].losses}
        table.append(row | compare(outcomes[run], outcomes[run.reference]))
        _check(run, run.precision, table[-1])
    resumed = []
    for number, (before, after) in enumerate(moves):
        folder = work / f"move_{number}"
        shutil.copytree(folders[before], folder)
        shutil.rmtree(list_checkpoints(folder)[-1].path)
        assert list_checkpoints(folder)[-1].step == SAVED_AT
        train(after, folder)
        found = compare(_resumed(folder, outcomes[before]), outcomes[after.reference])
        resumed.append({"before": asdict(before), "after": asdict(after), **found})
        _check(f"{before} -> {after}", after.precision, found)
    chance = chance_loss(BATCH)
    return {
        "steps": STEPS,
        "saved_at": SAVED_AT,
        "batch": BATCH,
        "chance": chance,
        "rows": table,
        "resumed": resumed,
    }


def chance_loss(examples: int) -> float:
    """The loss of a model that cannot tell candidates apart: logarithms of their numbers, in both directions."""
    frames, masked, sounds = DATA.num_segments, DATA.num_masked_subsegments, DATA.num_subsegments
    sides = [(frames, frames), (masked, sounds), (DATA.num_text_spans_to_include,) * 2]
    return sum(math.log(examples * x) / 2 + math.log(examples * y) / 2 for x, y in sides)


def _check(label: object, precision: str, found: Mapping[str, Any]) -> None:
    """Prints a row, and raises RuntimeError if it is not what one process computes."""
    print(f"{label}: loss {found['loss']:.1e}, weights {found['weights']:.1e}", flush=True)
    if not (found["loss"] <= LOSS_TOLERANCE[precision] and found["weights"] <= WEIGHTS_TOLERANCE[precision]):
        raise RuntimeError(f"{label} does not compute what one process computes: {found}")


def _resumed(folder: Path, before: Outcome) -> Outcome:
    return replace(Outcome.of(folder), start=before.start)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling.runs", description=__doc__)
    parser.add_argument("--save", action="store_true", help="store the table in benchmarks/results/MACHINE")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as work:
        table = measure(grid(), MOVES, Path(work))
    if options.save:
        path = RESULTS / machine_name("cpu") / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"torch": torch.__version__, **table}, indent=1) + "\n", "utf-8")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
