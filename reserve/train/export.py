"""Exports a checkpoint as a pretrained folder with its weights in one file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from reserve.errors import CheckpointError
from reserve.fs import sync_folder
from reserve.model.pretrained import pretrained_class, pretrained_step
from reserve.model.run_checkpoints import list_checkpoints
from reserve.model.sharded import CONFIG, WEIGHTS, holds_weights, open_weights
from reserve.model.tensor_files import DTYPES, write_tensors


def find_checkpoint(source: Path, step: int | None = None) -> Path:
    """The checkpoint that `source` names: a run's last one or that of `step`, or `source` if it is one.

    Raises CheckpointError where there is none, and ValueError for a step of a single checkpoint.
    """
    if holds_weights(source):
        if step is not None:
            raise ValueError(f"{source} is one checkpoint; --step chooses among those of a run")
        return source
    checkpoints = list_checkpoints(source)
    if not checkpoints:
        raise CheckpointError(f"{source} is neither a run with a checkpoint nor a checkpoint's folder")
    if step is None:
        return checkpoints[-1].path
    for checkpoint in checkpoints:
        if checkpoint.step == step:
            return checkpoint.path
    steps = ", ".join(str(checkpoint.step) for checkpoint in checkpoints)
    raise CheckpointError(f"{source} has no checkpoint of step {step}; it has those of {steps}")


def export_checkpoint(checkpoint: Path, out: Path) -> None:
    """Writes a checkpoint's weights and configuration to the new folder `out`, for `from_pretrained`.

    The files are verified first, and one tensor at a time is in memory. `out` appears when it is complete. Raises
    CheckpointError naming a damaged file, ValueError if `out` exists, and OSError if it cannot be written.
    """
    if os.path.lexists(out):  # a link to nowhere too
        raise ValueError(f"{out} already exists")
    # Parsed too: a folder without a readable configuration is no model.
    pretrained_step(checkpoint), pretrained_class(checkpoint)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with open_weights(checkpoint) as weights:
            slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118 (a handle, not a dict)
            shapes = {name: (array.get_dtype(), tuple(array.get_shape())) for name, array in slices.items()}
            for name, (dtype, _) in shapes.items():
                if dtype not in DTYPES:
                    raise CheckpointError(f"{name:.120} is {dtype}; a checkpoint holds {', '.join(DTYPES)}")
            write_tensors(partial / WEIGHTS, shapes, weights.get_tensor)
        shutil.copyfile(checkpoint / CONFIG, partial / CONFIG)
        sync_folder(partial)
        partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
