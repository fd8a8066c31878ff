"""Whether a run that was interrupted is the same as one that was not: its losses, weights, moments and files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from reserve.model.run_checkpoints import list_checkpoints
from reserve.train.distributed import Ranks
from reserve.train.metrics import read_metrics
from reserve.train.optimizer import make_optimizer
from reserve.train.run_folder import read_run
from reserve.train.state import restore_checkpoint, run_state

SPEED = frozenset(
    (
        "alloc_retries",
        "examples_per_second",
        "failed_evaluations",
        "failed_saves",
        "failed_writes",
        "host_memory_gb",
        "loader_memory_gb",
        "memory_gb",
        "reserved_gb",
        "seconds_evaluating",
        "seconds_per_step",
        "seconds_saving",
        "tokens_per_second",
        "tflops",
        "peak_memory_gb",
        "replaced_workers",
        "seconds",
        "seconds_waiting",
        "share_waiting",
    )
)
"""What a line of metrics.jsonl says of the machine; all else must be equal, in all nine digits of a float32."""


@dataclass
class Comparison:
    """Counts what was compared with an uninterrupted run, and collects what differs."""

    reference: Path
    losses: int = 0
    tensors: int = 0
    differences: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lines = {line["step"]: losses_of(line) for line in read_metrics(self.reference / "metrics.jsonl")}
        self._state = tensors_of(self.reference)

    def compare_losses(self, run: Path) -> None:
        """Compares all whole lines of a run that may have been killed."""
        for line in read_metrics(run / "metrics.jsonl") if (run / "metrics.jsonl").exists() else ():
            expected, found = self._lines.get(line["step"]), losses_of(line)
            self.losses += 1
            if found != expected:
                self.differences.append(f"{run.name}: step {line['step']:.0f} has {found}, not {expected}")

    def compare_finished(self, run: Path) -> None:
        """Compares a run that came to its end: each step logged once, the same last state, nothing left half done."""
        self.compare_losses(run)
        steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
        self._expect(run, "the steps of metrics.jsonl", steps, sorted(self._lines))
        self._expect(run, "the steps of TensorBoard", tensorboard_steps(run), sorted(self._lines))
        self._expect(run, "the files", files_of(run), files_of(self.reference))
        state = tensors_of(run)
        self._expect(run, "the names of the state", sorted(state), sorted(self._state))
        for name in state.keys() & self._state.keys():
            self.tensors += 1
            if not _same_bits(state[name], self._state[name]):
                self.differences.append(f"{run.name}: {name} differs")

    def _expect(self, run: Path, what: str, found: Any, expected: Any) -> None:
        if found != expected:
            self.differences.append(f"{run.name}: {what} are {found}, not {expected}")


def losses_of(line: dict[str, float]) -> dict[str, float]:
    """What a line of metrics.jsonl says of the training."""
    return {name: value for name, value in line.items() if name not in SPEED}


def tensorboard_steps(run: Path) -> list[int]:
    """The steps of the losses that TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return [event.step for event in board.Scalars("loss")]


def files_of(run: Path) -> list[str]:
    """A run's files, without those of TensorBoard, to which each start adds one, and of older checkpoints, which a kill
    at the very end leaves."""
    older = {checkpoint.path for checkpoint in list_checkpoints(run)[:-1]} | {run / "tensorboard"}
    return sorted(
        str(path.relative_to(run)) for path in run.rglob("*") if path.is_file() and not older & {*path.parents}
    )


def tensors_of(run: Path) -> dict[str, torch.Tensor]:
    """Weights, moments and whatever else the last checkpoint holds for the optimiser, by name."""
    task, config = read_run(run)
    model = task.build_model()
    optimizer = make_optimizer(
        model, task.parameter_groups(model, config.optimizer), config.optimizer, decay_to_start=task.finetuning
    )
    progress = restore_checkpoint(run, model, optimizer, Ranks(0, 1, torch.device("cpu")))
    assert list_checkpoints(run)[-1].step == progress.step
    return run_state(model, optimizer) | {"place": torch.tensor(progress.place)}


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(_bytes(one), _bytes(other))


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)
