"""Fills a model with stored weights: each parameter once, with the right shape and finite numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import nn

from reserve.errors import CheckpointError
from reserve.model.initialization import float32_on_cpu

Model = TypeVar("Model", bound=nn.Module)


def empty_model(make: Callable[[], Model]) -> Model:
    """A float32 model on the meta device, which skips the initialisation of weights that a checkpoint replaces."""
    with float32_on_cpu(), torch.device("meta"):
        return make()


def fill_model(model: Model, read: Callable[[str, torch.Size], tuple[str, torch.Tensor]]) -> Model:
    """Allocates an empty model on the CPU and sets its parameters.

    `read(parameter, size)` returns the parameter's name in the checkpoint and its value with the shape `size`. Raises
    CheckpointError if a number is not finite.
    """
    model.to_empty(device="cpu")
    for name, parameter in model.named_parameters():
        copy_weight(parameter, *read(name, parameter.shape))
    return model


@torch.no_grad()
def copy_weight(target: torch.Tensor, stored_name: str, value: torch.Tensor) -> None:
    """Copies `value` into a parameter or buffer. Raises CheckpointError naming `stored_name` if it is not finite."""
    target.copy_(value)
    # After the copy, since a float64 number can overflow float32.
    if not bool(torch.isfinite(target).all()):
        raise CheckpointError(f"{stored_name} holds numbers that are not finite")


def compare_shapes(expected: Mapping[str, tuple[int, ...]], stored: Mapping[str, tuple[int, ...]]) -> None:
    """Raises CheckpointError naming the arrays that are missing, unknown or misshapen."""
    missing, extra = sorted(expected.keys() - stored.keys()), sorted(stored.keys() - expected.keys())
    wrong = [
        f"{name} is {tuple(stored[name])}, not {tuple(expected[name])}"
        for name in sorted(expected.keys() & stored.keys())
        if tuple(stored[name]) != tuple(expected[name])
    ]
    problems = [
        f"{len(names)} {what}: {listed(names)}"
        for what, names in [("missing", missing), ("unknown", extra), ("misshapen", wrong)]
        if names
    ]
    if problems:
        raise CheckpointError("the checkpoint does not fit the configuration: " + "; ".join(problems))


def listed(names: list[str]) -> str:
    """The first five names, truncated to a readable length."""
    return f"{', '.join(name[:120] for name in names[:5])}{', …' if len(names) > 5 else ''}"
