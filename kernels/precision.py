"""What autocast means for the ops: which dtype it asks for, and how an op's own arithmetic is shielded from it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
Result = TypeVar("Result")


def computing_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype that numbers in `dtype` are computed in: autocast's where it is on, else `dtype`. float64 stays."""
    kind = device.type
    # PyTorch raises an error if it is asked about a device that has no autocast, such as meta.
    if dtype != torch.float64 and torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return dtype


def autocast_off(device: torch.device) -> AbstractContextManager[Any]:
    """A context without autocast on `device`; meta and other devices that have none need nothing."""
    kind = device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def without_autocast(function: Callable[P, Result]) -> Callable[P, Result]:
    """Turns autocast off around an op's implementation, on the device of its first argument, a tensor.

    Otherwise autocast stays on inside the op and computes its float32 matrix products in half precision.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> Result:
        first = args[0] if args else next(iter(kwargs.values()))
        assert isinstance(first, torch.Tensor)
        # Entering a context takes longer than asking whether there is a need.
        if not (torch.amp.is_autocast_available(first.device.type) and torch.is_autocast_enabled(first.device.type)):
            return function(*args, **kwargs)
        with autocast_off(first.device):
            return function(*args, **kwargs)

    return run
