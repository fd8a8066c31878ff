"""Saving and resuming a run: one folder a checkpoint, complete or absent."""

from __future__ import annotations

import os
import pickle
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from reserve.errors import CheckpointError
from reserve.fs import replacing
from reserve.model.pretrained import Pretrained

_NAME = re.compile(r"step_(\d{8})")
_PARTIAL = ".partial"
_STATE = "trainer.pt"


@dataclass(frozen=True)
class Checkpoint:
    """A saved state: `path` is also a pretrained model's folder (model.safetensors, config.json)."""

    path: Path
    step: int


@dataclass(frozen=True)
class Progress:
    """How far a run is: `step` steps, and where the next batch starts in its data set of `examples`, in the order of
    `seed`.

    `place` counts the examples used since the start, so that a run resumes with batches of any size.
    All three are None in checkpoints of older versions.
    """

    step: int
    place: int | None = None
    examples: int | None = None
    seed: int | None = None


def list_checkpoints(run: Path) -> list[Checkpoint]:
    """The complete checkpoints of a run, oldest first."""
    found = [(path, _NAME.fullmatch(path.name)) for path in (run / "checkpoints").glob("step_*")]
    return sorted((Checkpoint(path, int(m[1])) for path, m in found if m), key=lambda c: c.step)


def save_checkpoint(
    run: Path, progress: Progress, model: Pretrained, optimizer: torch.optim.Optimizer, *, keep: int
) -> Checkpoint:
    """Writes a run's state, then removes all but the `keep` latest checkpoints.

    It is written under another name and renamed when it is whole, so that a crash leaves no half checkpoint. Remains
    of an earlier crash are removed first. Raises ValueError where the model has diverged to weights that are not
    finite, which could not be loaded again; OSError where a file cannot be written.
    """
    step = progress.step
    folder = run / "checkpoints" / f"step_{step:08d}"
    for left in folder.parent.glob(f"step_*{_PARTIAL}"):
        shutil.rmtree(left, ignore_errors=True)
    partial = folder.with_name(folder.name + _PARTIAL)
    partial.mkdir(parents=True)
    try:
        model.save_pretrained(partial, step=step)
    except ValueError as error:
        raise ValueError(
            f"the model has diverged and is not saved: after step {step} {error}. Resume from the last checkpoint, or "
            "start again, with a smaller optimizer.learning_rate"
        ) from error
    state = {**asdict(progress), "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}
    with replacing(partial / _STATE) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:
            raise OSError(f"cannot write {partial / _STATE}: {error}") from error
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    for old in list_checkpoints(run)[:-keep]:
        shutil.rmtree(old.path)
    return Checkpoint(folder, step)


def load_trainer_state(checkpoint: Checkpoint, optimizer: torch.optim.Optimizer) -> Progress:
    """Restores the moments and torch's generator, and returns the run's progress. Nothing in the file is executed.

    The optimiser keeps the settings it was made with, so that a run can be resumed with others. Raises CheckpointError
    where the file is missing or damaged, ValueError where it is of another kind of optimiser.
    """
    path = checkpoint.path / _STATE
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        moments, generator = state["optimizer"], state["rng"]
        progress = _checked(Progress(checkpoint.step, state.get("place"), state.get("examples"), state.get("seed")))
    except (OSError, EOFError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path} is missing or damaged; without {checkpoint.path} the run resumes from the checkpoint before it"
        ) from error
    settings = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(moments)
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)
    torch.set_rng_state(generator)
    return progress


def _checked(progress: Progress) -> Progress:
    """Raises TypeError unless the numbers of a state that was read are whole and possible."""
    numbers = (progress.place, progress.examples, progress.seed)
    if numbers != (None,) * 3 and not (all(type(n) is int and n >= 0 for n in numbers) and progress.examples):
        raise TypeError(f"the place in the data must be three whole numbers; got {numbers}")
    return progress


def restore_checkpoint(run: Path, model: Pretrained, optimizer: torch.optim.Optimizer) -> Progress:
    """Loads the run's last checkpoint, if any, into model and optimiser; returns the run's progress.

    Raises ValueError where it is damaged or of other settings.
    """
    checkpoints = list_checkpoints(run)
    if not checkpoints:
        return Progress(0)
    model.restore(checkpoints[-1].path)
    return load_trainer_state(checkpoints[-1], optimizer)
