"""A run's checkpoints: which there are, what they hold, and loading the last one."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reserve.errors import CheckpointError, DamagedCheckpoint
from reserve.model.manifest import MODEL, OPTIMIZER, Chunk, StoredTensor, check_files, has_manifest, read_manifest
from reserve.model.pretrained import Pretrained, stored_tensors
from reserve.model.run_checkpoints import Checkpoint, list_checkpoints
from reserve.model.tensor_files import DTYPE_NAMES, DTYPES, TensorFiles
from reserve.model.weights import compare_shapes
from reserve.train.distributed import Ranks
from reserve.train.old_state import OLD_STATE, read_old_state
from reserve.train.storage import ReadPart, load_state
from reserve_kernels import BF16AdamW
from reserve_kernels.adamw.options import state_dtypes

logger = logging.getLogger(__name__)

DAMAGED = ".damaged"
"""Ends the name of a checkpoint that a resumed run has passed over."""


@dataclass(frozen=True)
class Progress:
    """How far a run is: `step` steps, and where the next batch starts in its data set of `examples`, in the order of
    `seed`.

    `place` counts the examples used since the start, so that a run resumes with batches of any size.
    All three are None in checkpoints of older versions. `order` identifies a mixture of sets or a set of shards
    (`reserve.data.order.ExampleStream.identity`). `skipped` counts the damaged samples that were skipped so far,
    `not_finite` the steps whose loss or gradients were not finite.
    """

    step: int
    place: int | None = None
    examples: int | None = None
    seed: int | None = None
    order: str = ""
    skipped: int = 0
    not_finite: int = 0


def run_state(model: Pretrained, optimizer: BF16AdamW) -> dict[str, torch.Tensor]:
    """What a checkpoint holds: weights and buffers as "model/NAME", moments as "optimizer/NAME.m" and so on.

    Moments are under the name of their parameter, so that they can be loaded however the model is sharded and its
    parameters are grouped.
    """
    state = {f"{MODEL}/{name}": value.detach() for name, value in stored_tensors(model).items()}
    for name, parameter, _ in _named_parameters(model, optimizer):
        for key, value in optimizer.state.get(parameter, {}).items():
            state[f"{OPTIMIZER}/{name}.{key}"] = value
    # The shards of a tensor without elements do not have the shapes that torch.distributed.checkpoint expects.
    return {
        name: value if value.numel() else torch.empty(value.shape, dtype=value.dtype, device="cpu")
        for name, value in state.items()
    }


def restore_checkpoint(run: Path, model: Pretrained, optimizer: BF16AdamW, ranks: Ranks) -> Progress:
    """Loads the run's last good checkpoint, if any, into model and optimiser; returns the run's progress.

    The checkpoint may be of another number of ranks and another way to shard. The optimiser keeps the settings it was
    made with, so that a run can be resumed with others. Every file is verified before the first is loaded. A damaged
    checkpoint is passed over with a warning, and renamed to end with DAMAGED once an older one is loaded.

    Raises on every rank: CheckpointError naming the files if all checkpoints are damaged, or if the last one cannot be
    read for another reason; ValueError if it is of another model or kind of optimiser.
    """
    checkpoints = list_checkpoints(run)
    faults: list[tuple[Checkpoint, DamagedCheckpoint]] = []
    for checkpoint in reversed(checkpoints):
        try:
            progress = _restore(checkpoint, model, optimizer, ranks)
        except DamagedCheckpoint as error:
            faults.append((checkpoint, error))
            continue
        if ranks.is_first:
            for damaged, fault in faults:
                logger.warning(
                    "%s. The checkpoint is kept as %s, and the run resumes from step %d: %d steps are done again",
                    fault,
                    _set_aside(damaged),
                    checkpoint.step,
                    damaged.step - checkpoint.step,
                )
        return progress
    if faults:
        raise CheckpointError(
            f"{run} has no checkpoint that can be loaded: {'; '.join(str(fault) for _, fault in faults)}. "
            "Start the run again, in another folder"
        ) from faults[0][1]
    return Progress(0)


def _set_aside(checkpoint: Checkpoint) -> str:
    """Renames a damaged checkpoint, which would else count as the run's last one; returns its new name."""
    aside = checkpoint.path.with_name(checkpoint.path.name + DAMAGED)
    shutil.rmtree(aside, ignore_errors=True)
    return checkpoint.path.replace(aside).name


def _restore(checkpoint: Checkpoint, model: Pretrained, optimizer: BF16AdamW, ranks: Ranks) -> Progress:
    with TensorFiles(checkpoint.path) as files:
        error: Exception | None = None
        try:
            if has_manifest(checkpoint.path) or not (checkpoint.path / OLD_STATE).exists():
                progress, stored, read = _open(checkpoint, files, ranks)
            else:
                progress, stored, read = _open_old(checkpoint, model, optimizer)
            model.check_config(checkpoint.path)
            moments = _empty_moments(model, optimizer, stored)
            state = {f"{MODEL}/{name}": value.detach() for name, value in stored_tensors(model).items()}
            state |= {f"{OPTIMIZER}/{name}.{key}": value for name, own in moments.items() for key, value in own.items()}
            compare_shapes(
                {fqn: tuple(value.shape) for fqn, value in state.items()},
                {fqn: tensor.shape for fqn, tensor in stored.items()},
            )
        except Exception as caught:
            error = caught
        ranks.fail_together(error)
        with torch.no_grad():
            load_state(state, stored, read, ranks.control)
    _check_finite(model, checkpoint, ranks)
    optimizer.state.clear()
    for name, parameter, _ in _named_parameters(model, optimizer):
        if name in moments:
            optimizer.state[parameter] = moments[name]
    return progress


def _open(
    checkpoint: Checkpoint, files: TensorFiles, ranks: Ranks
) -> tuple[Progress, dict[str, StoredTensor], ReadPart]:
    """Verifies this rank's share of a checkpoint's files, and says what they hold."""
    manifest = read_manifest(checkpoint.path)
    by_size = sorted(manifest.files, key=lambda name: (-manifest.files[name].size, name))
    check_files(checkpoint.path, manifest, by_size[ranks.rank :: ranks.world_size])
    progress = _checked(manifest.progress, checkpoint)
    stored = {f"{part}/{name}": tensor for part, own in manifest.tensors.items() for name, tensor in own.items()}
    return progress, stored, lambda dtype, chunk, part: files.read(chunk.file, chunk.key, dtype, chunk.sizes, part)


def _open_old(
    checkpoint: Checkpoint, model: Pretrained, optimizer: BF16AdamW
) -> tuple[Progress, dict[str, StoredTensor], ReadPart]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [[names[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]
    try:
        old = read_old_state(checkpoint.path, groups)
    except CheckpointError as error:  # There are no checksums that could tell why.
        raise DamagedCheckpoint(str(error)) from error
    stored = {}
    for fqn, value in old.tensors.items():
        shape = tuple(value.shape)
        stored[fqn] = StoredTensor(DTYPE_NAMES[value.dtype], shape, (Chunk("", fqn, (0,) * len(shape), shape),))
    progress = _checked({"step": checkpoint.step, **old.progress}, checkpoint)
    return progress, stored, lambda _, chunk, part: old.tensors[chunk.key][part]


def _checked(values: Mapping[str, Any], checkpoint: Checkpoint) -> Progress:
    """The progress in a checkpoint. Raises CheckpointError unless its numbers are whole and possible."""
    place = (values.get("place"), values.get("examples"), values.get("seed"))
    possible = all(type(number) is int and number >= 0 for number in place) and place[1]
    # Earlier releases had neither.
    order, counts = values.get("order", ""), (values.get("skipped", 0), values.get("not_finite", 0))
    whole = type(order) is str and all(type(count) is int and count >= 0 for count in counts)
    if values.get("step") != checkpoint.step or not whole or (place != (None,) * 3 and not possible):
        raise CheckpointError(
            f"{checkpoint.path} is damaged: a checkpoint of step {checkpoint.step} cannot be at {dict(values)}"
        )
    return Progress(checkpoint.step, *place, order, *counts)


def _named_parameters(
    model: Pretrained, optimizer: BF16AdamW
) -> Iterator[tuple[str, torch.nn.Parameter, dict[str, Any]]]:
    """The optimiser's parameters with their names in the model and their groups."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) not in names:
                raise ValueError(
                    f"the optimiser has a parameter of shape {tuple(parameter.shape)} that the model lacks"
                )
            yield names[id(parameter)], parameter, group


def _empty_moments(
    model: Pretrained, optimizer: BF16AdamW, stored: Mapping[str, StoredTensor]
) -> dict[str, dict[str, torch.Tensor]]:
    """Tensors to load moments into, for each parameter that has some.

    Raises ValueError where the stored ones are those of another kind of optimiser.
    """
    held: dict[str, set[str]] = {}
    for fqn in stored:
        part, _, key = fqn.partition("/")
        if part == OPTIMIZER:
            name, _, kind = key.rpartition(".")
            held.setdefault(name, set()).add(kind)
    moments = {}
    for name, parameter, group in _named_parameters(model, optimizer):
        if name not in held:  # It never had a gradient.
            continue
        dtypes = state_dtypes(group)
        if held[name] != {"step", *dtypes}:
            raise ValueError(
                f"the state of {name} holds {sorted(held[name])}; this optimizer keeps {sorted({'step', *dtypes})}"
            )
        for kind, dtype in dtypes.items():
            saved = DTYPES[stored[f"{OPTIMIZER}/{name}.{kind}"].dtype]
            if saved != dtype:
                raise ValueError(f"the state has moments in {saved}; this optimizer keeps them in {dtype}")
        moments[name] = {"step": torch.zeros((), dtype=torch.int64, device="cpu")} | {
            kind: torch.zeros_like(parameter, dtype=dtype, requires_grad=False) for kind, dtype in dtypes.items()
        }
    return moments


def _check_finite(model: Pretrained, checkpoint: Checkpoint, ranks: Ranks) -> None:
    name = not_finite(model)
    ranks.fail_together(
        DamagedCheckpoint(f"{checkpoint.path}: {name} holds numbers that are not finite") if name else None
    )


def not_finite(model: Pretrained) -> str | None:
    """The first weight or buffer of which this rank's part has a number that is not finite."""
    for name, value in stored_tensors(model).items():
        local = value.detach()
        local = local.to_local() if hasattr(local, "to_local") else local
        # A sum is faster, and not finite if a number is not.
        if local.is_floating_point() and not bool(local.sum().isfinite()) and not bool(local.isfinite().all()):
            return name
    return None
