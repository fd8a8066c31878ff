"""Keeping an op's own arithmetic out of autocast's reach."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
Result = TypeVar("Result")


def without_autocast(function: Callable[P, Result]) -> Callable[P, Result]:
    """Runs an op's implementation, whose first argument is a tensor, with autocast off on that tensor's device.

    Autocast stays on inside an op and would compute the op's float32 matrix products in half precision.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> Result:
        first = args[0] if args else next(iter(kwargs.values()))
        assert isinstance(first, torch.Tensor)
        with torch.autocast(first.device.type, enabled=False):
            return function(*args, **kwargs)

    return run
