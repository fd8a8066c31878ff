"""Compiles the layers of a model's encoders with torch.compile."""

from __future__ import annotations

import functools
import logging
from types import MethodType
from typing import Literal

import torch
from torch import nn

from reserve.model.transformer import Layer

logger = logging.getLogger(__name__)

Compile = Literal["auto", "layers", "none"]


def compile_layers(model: nn.Module, mode: Compile, device: torch.device) -> bool:
    """Compiles each `Layer` of `model` in place and says whether it did; names and weights stay as they are.

    The layers of all encoders share graphs, whose numbers of tokens and sequences are symbolic, so that batches of
    other sizes compile nothing anew. The ops of `reserve_kernels` are calls in them. "auto" compiles on a GPU and falls
    back to eager mode, with a warning, where there is no compiler; "layers" raises RuntimeError there.
    """
    if mode == "none" or (mode == "auto" and device.type == "cpu"):
        return False
    layers = [module for module in model.modules() if isinstance(module, Layer)]
    reason = compiler_fault(device.type)
    if reason is not None:
        if mode == "layers":
            raise RuntimeError(f"train.compile is layers, but torch.compile does not work here: {reason}")
        logger.warning("layers are not compiled, since torch.compile does not work here: %s", reason)
        return False
    for layer in layers:
        # Not layer.compile(), which would compile the hooks of FSDP with it. Bound to the layer, so that a deep copy of
        # the model computes with its own weights.
        forward = torch.compile(type(layer).forward, dynamic=True, fullgraph=True)
        layer.forward = MethodType(forward, layer)  # type: ignore[method-assign]
    return bool(layers)


@functools.cache
def compiler_fault(device_type: str) -> str | None:
    """Why torch.compile cannot compile for a device, found by compiling a small function; None if it can."""
    try:
        torch.compile(_probe, dynamic=True, fullgraph=True)(torch.ones(8, device=device_type))
    except Exception as error:  # which errors depends on what is missing: Triton, a C or C++ compiler, headers
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    return None


def _probe(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1
