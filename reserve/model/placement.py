"""Where a module is and what it computes in, whatever its layers were replaced by: quantised, adapted or sharded ones.

Only a plain layer has a `weight` that is a tensor of the dtype it computes in.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import torch
from torch import nn

COMPUTED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Dtypes that activations can have. Quantised weights may be stored in others, floating ones included."""


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    return chain(module.parameters(), module.buffers())


def module_device(module: nn.Module) -> torch.device:
    """The device of the module's first parameter or buffer; the CPU if it has none."""
    first = next(_tensors(module), None)
    return torch.device("cpu") if first is None else first.device


def module_dtype(module: nn.Module) -> torch.dtype:
    """The dtype of the module's first parameter or buffer that activations can have; float32 if it has none."""
    return next((tensor.dtype for tensor in _tensors(module) if tensor.dtype in COMPUTED), torch.float32)


def is_plain_linear(module: nn.Module) -> bool:
    """Whether calling `module` does nothing but multiply by its `weight` and add its `bias`.

    False for whatever replaces or extends a linear layer: another class, as quantisation, adapters, parametrisation and
    FSDP2 make it, a forward pass of the instance's own, or hooks.
    """
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return type(module) is nn.Linear and "forward" not in module.__dict__ and not any(hooks)
