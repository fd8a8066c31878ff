"""Checkpoints of older versions: `trainer.pt` beside a pretrained folder."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reserve.errors import BadInput, CheckpointError
from reserve.fs import check_regular_file
from reserve.model.manifest import MODEL, OPTIMIZER
from reserve.model.sharded import WEIGHTS
from reserve.model.tensor_files import DTYPE_NAMES, safetensors_library

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
        check_regular_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        saved = [list(group["params"]) for group in state["optimizer"]["param_groups"]]
        progress = {name: state.get(name) for name in ("place", "examples", "seed")}
        moments = {
            (number, key): torch.as_tensor(value)
            for number, entry in state["optimizer"]["state"].items()
            for key, value in entry.items()
        }
        numbers = {number for group in saved for number in group}
        unknown = [number for number, _ in moments if number not in numbers]
    except pickle.UnpicklingError as error:  # Its message advises to load the file without weights_only.
        raise CheckpointError(f"{path} is missing or damaged: it holds more than tensors and plain values") from error
    except Exception as error:  # torch.load raises anything at all for damaged files.
        raise CheckpointError(f"{path} is missing or damaged: {error}") from error
    if unknown or any(value.dtype not in DTYPE_NAMES for value in moments.values()):
        raise CheckpointError(f"{path} is missing or damaged: its state is of no parameter or of an unknown dtype")
    if [len(group) for group in saved] != [len(group) for group in groups]:
        raise ValueError(
            f"{path} is of an optimiser with groups of {', '.join(str(len(group)) for group in saved)} parameters; "
            f"this one has {', '.join(str(len(group)) for group in groups)}"
        )
    names = dict(zip(itertools.chain(*saved), itertools.chain(*groups), strict=True))
    tensors = {
        f"{OPTIMIZER}/{names[number]}.{key}": value.long() if key == "step" else value
        for (number, key), value in moments.items()
    }
    safetensors = safetensors_library()
    try:
        check_regular_file(folder / WEIGHTS)
        weights = safetensors.torch.load_file(folder / WEIGHTS)
    except (BadInput, OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{folder / WEIGHTS} is missing or damaged: {error}") from error
    return OldState(progress, tensors | {f"{MODEL}/{name}": value for name, value in weights.items()})
