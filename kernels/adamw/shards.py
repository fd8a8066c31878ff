"""Parameters that are distributed over processes (DTensor): the part that this process updates."""

from __future__ import annotations

import math

import torch


def local_tensors(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """This process's shards of a parameter's tensors if they are distributed, else the tensors.

    Raises ValueError if they are not distributed alike.
    """
    if not hasattr(tensors[0], "to_local"):
        return tensors
    placements = [getattr(tensor, "placements", None) for tensor in tensors]
    if any(other != placements[0] for other in placements):
        raise ValueError(
            f"BF16AdamW: a parameter, its gradient and its state must have one placement; got {placements}"
        )
    return [tensor.to_local() for tensor in tensors]  # type: ignore[attr-defined]


def first_element(parameter: torch.Tensor) -> int:
    """The index of this process's first element in the whole parameter, flattened; 0 if it has all of it.

    A shard of dimension 0 holds that element and the following ones.
    """
    if not hasattr(parameter, "to_local"):
        return 0
    # Imported with the first distributed parameter: it is slow and not in all builds of PyTorch.
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape = parameter.shape
    mesh, placements = parameter.device_mesh, parameter.placements  # type: ignore[attr-defined]
    _, offsets = compute_local_shape_and_global_offset(shape, mesh, placements)
    return sum(offset * math.prod(shape[dim + 1 :]) for dim, offset in enumerate(offsets))
