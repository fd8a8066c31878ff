"""Argument checks shared by the ops. Each error names the argument, what it was and what is allowed."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_tensor(name: str, value: object, dtypes: tuple[torch.dtype, ...]) -> torch.Tensor:
    """Returns `value` if it is a tensor of one of `dtypes`, else raises TypeError."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor; got {type(value).__name__}")
    if value.dtype not in dtypes:
        allowed = ", ".join(str(d).removeprefix("torch.") for d in dtypes)
        raise TypeError(f"{name} must have dtype {allowed}; got {str(value.dtype).removeprefix('torch.')}")
    return value


def has_values(tensor: torch.Tensor) -> bool:
    """Whether `tensor` has numbers: not on the meta device, under FakeTensorMode, nor while a compiler traces."""
    return not (tensor.is_meta or isinstance(tensor, FakeTensor | FunctionalTensor))


def check_same_device(name: str, value: torch.Tensor, other_name: str, other: torch.Tensor) -> None:
    """Raises ValueError unless both tensors are on the same device."""
    if value.device != other.device:
        raise ValueError(f"{name} must be on {other_name}'s device {other.device}; got {value.device}")


def check_integer(name: str, value: object, least: int, most: int | None = None) -> None:
    """Raises TypeError unless `value` is an integer (a SymInt counts), ValueError unless it is within the bounds."""
    allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
    if isinstance(value, bool) or not isinstance(value, (int, np.integer, torch.SymInt)):
        raise TypeError(f"{name} must be an integer {allowed}; got {value!r}")
    if value < least or (most is not None and value > most):
        raise ValueError(f"{name} must be an integer {allowed}; got {value!r}")


def check_real(name: str, value: object) -> None:
    """Raises TypeError unless `value` is a Python or NumPy number, ValueError unless it is finite."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number; got {value!r}")
    if not -math.inf < value < math.inf:
        raise ValueError(f"{name} must be finite; got {value!r}")
