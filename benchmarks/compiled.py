"""torch.compile as a peer, specialised to each shape."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

SHAPES = 64
"""Shapes a function may be compiled for. Beyond its limit, 8 by default, PyTorch silently runs it uncompiled."""


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled for every shape anew: dynamic shapes would be slower."""
    torch._dynamo.config.recompile_limit = SHAPES
    return torch.compile(function, dynamic=False)
