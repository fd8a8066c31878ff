"""Saving a run and going on with it: one folder a checkpoint, complete or not there at all."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reserve.model.merlot_reserve import MerlotReserve

_NAME = re.compile(r"step_(\d{8})")


@dataclass(frozen=True)
class Checkpoint:
    """A saved state: `path` is also a pretrained model's folder (model.safetensors, config.json)."""

    path: Path
    step: int


def list_checkpoints(run: Path) -> list[Checkpoint]:
    """The complete checkpoints of a run, oldest first."""
    found = [(path, _NAME.fullmatch(path.name)) for path in (run / "checkpoints").glob("step_*")]
    return sorted((Checkpoint(path, int(m[1])) for path, m in found if m), key=lambda c: c.step)


def save_checkpoint(
    run: Path, step: int, model: MerlotReserve, optimizer: torch.optim.Optimizer, *, keep: int
) -> Checkpoint:
    """Writes the state after `step` steps, then removes all but the `keep` latest checkpoints.

    It is written under another name and renamed when it is whole, so that a crash leaves no half checkpoint.
    """
    folder = run / "checkpoints" / f"step_{step:08d}"
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model.save_pretrained(partial, step=step)
    state = {"step": step, "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}
    torch.save(state, partial / "trainer.pt")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    for old in list_checkpoints(run)[:-keep]:
        shutil.rmtree(old.path)
    return Checkpoint(folder, step)


def load_trainer_state(checkpoint: Checkpoint, optimizer: torch.optim.Optimizer) -> None:
    """Puts the optimiser and torch's generator back where they were. Nothing in the file is executed."""
    state: dict[str, Any] = torch.load(checkpoint.path / "trainer.pt", map_location="cpu", weights_only=True)
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["rng"])
