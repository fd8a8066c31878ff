"""torch.compile as a peer: specialised to each shape."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

SHAPES = 64
"""Shapes that a function may be compiled for. Beyond PyTorch's own limit of 8 it would silently run uncompiled."""


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled anew for every shape, not once for shapes in general, which is slower."""
    torch._dynamo.config.recompile_limit = SHAPES
    return torch.compile(function, dynamic=False)
