"""Which checkpoints a run has. Each is also the folder of a pretrained model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

REPLACED = ".replaced"
"""Ends the name of a checkpoint whose step was saved again, until the new one has its place."""

_NAME = re.compile(rf"step_(\d{{8}})(?:{re.escape(REPLACED)})?")


@dataclass(frozen=True)
class Checkpoint:
    """A saved state: `path` is also a pretrained model's folder."""

    path: Path
    step: int


def checkpoint_folder(run: Path, step: int) -> Path:
    """Where a run's checkpoint after `step` steps is."""
    return run / "checkpoints" / f"step_{step:08d}"


def list_checkpoints(run: Path) -> list[Checkpoint]:
    """The complete checkpoints of a run, one a step, oldest first."""
    # A replaced checkpoint comes before the one that took its place, if there is one, and gives way to it.
    paths = sorted((run / "checkpoints").glob("step_*"), reverse=True)
    found = {int(match[1]): path for path in paths if (match := _NAME.fullmatch(path.name))}
    return [Checkpoint(path, step) for step, path in sorted(found.items())]
