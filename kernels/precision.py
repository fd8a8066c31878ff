"""Shields an op's own arithmetic from autocast."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
Result = TypeVar("Result")


def without_autocast(function: Callable[P, Result]) -> Callable[P, Result]:
    """Turns autocast off around an op's implementation, on the device of its first argument, a tensor.

    Otherwise autocast stays on inside the op and computes its float32 matrix products in half precision.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> Result:
        first = args[0] if args else next(iter(kwargs.values()))
        assert isinstance(first, torch.Tensor)
        with torch.autocast(first.device.type, enabled=False):
            return function(*args, **kwargs)

    return run
