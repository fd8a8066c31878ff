"""Checkpoints of older versions: `trainer.pt` beside a pretrained folder."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reserve.errors import CheckpointError
from reserve.model.manifest import MODEL, OPTIMIZER
from reserve.model.sharded import WEIGHTS
from reserve.model.tensor_files import safetensors_library

OLD_STATE = "trainer.pt"


@dataclass(frozen=True)
class OldState:
    """The whole tensors of an old checkpoint by "PART/NAME", and the numbers that say how far the run was."""

    progress: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]


def read_old_state(folder: Path, groups: Sequence[Sequence[str]]) -> OldState:
    """Reads an old checkpoint, without executing anything in it.

    It numbers the optimiser's parameters; `groups` are their names in the order of the optimiser's groups. Raises
    CheckpointError naming the file, and ValueError where the groups are of other sizes.
    """
    path = folder / OLD_STATE
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        saved = [list(group["params"]) for group in state["optimizer"]["param_groups"]]
        states = {number: dict(entry) for number, entry in state["optimizer"]["state"].items()}
        progress = {name: state.get(name) for name in ("place", "examples", "seed")}
    except (
        OSError,
        EOFError,
        KeyError,
        TypeError,
        AttributeError,
        ValueError,
        RuntimeError,
        pickle.UnpicklingError,
    ) as e:
        raise CheckpointError(f"{path} is missing or damaged") from e
    if [len(group) for group in saved] != [len(group) for group in groups]:
        raise ValueError(
            f"{path} is of an optimiser with groups of {', '.join(str(len(group)) for group in saved)} parameters; "
            f"this one has {', '.join(str(len(group)) for group in groups)}"
        )
    names = {
        number: name
        for numbers, own in zip(saved, groups, strict=True)
        for number, name in zip(numbers, own, strict=True)
    }
    tensors = {}
    for number, entry in states.items():
        for key, value in entry.items():
            value = torch.as_tensor(value)
            tensors[f"{OPTIMIZER}/{names[number]}.{key}"] = value.long() if key == "step" else value
    safetensors = safetensors_library()
    try:
        weights = safetensors.torch.load_file(folder / WEIGHTS)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{folder / WEIGHTS} is missing or damaged: {error}") from error
    return OldState(progress, tensors | {f"{MODEL}/{name}": value for name, value in weights.items()})
