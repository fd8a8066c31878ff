"""The reference's initialisation (SPEC 4).

Linear kernels are truncated normals. In the attention pools the released code leaves flax's default, LeCun's normal
with a standard deviation of 1 / sqrt(hidden).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import RLock

import torch
from torch import nn

from reserve.model.transformer import AttentionPool
from reserve_kernels.checks import has_values

# Standard deviation of a unit normal truncated at two sigma; flax divides by it to keep LeCun's variance.
_TRUNCATED_STD = 0.87962566103423978


_CPU_BLOCK = 1 << 14
"""Numbers drawn at a time: few enough for a core's cache, and for PyTorch to use one thread. Several threads would wait
for each other at every block, which takes ten times as long on busy cores."""

_default_dtype = RLock()
"""Held while the default dtype is changed."""

_undrawn: ContextVar[bool] = ContextVar("undrawn", default=False)


@contextmanager
def float32_on_cpu() -> Iterator[None]:
    """A context in which modules are constructed in float32 on the CPU, whatever torch's default dtype and device are.

    Weights that are loaded or trained must not be rounded to the default dtype of the surrounding program. That default
    belongs to the whole process: until the context ends, other threads see float32, and wait to enter one themselves.
    """
    with _default_dtype:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            with torch.device("cpu"):
                yield
        finally:
            torch.set_default_dtype(before)


@contextmanager
def undrawn() -> Iterator[None]:
    """A context in which trunks are constructed without initial weights, for models whose weights are loaded next.

    What a subclass initialises itself is drawn all the same: the folder that is loaded may lack it.
    """
    token = _undrawn.set(True)
    try:
        yield
    finally:
        _undrawn.reset(token)


def is_undrawn() -> bool:
    """Whether an `undrawn` context is active."""
    return _undrawn.get()


def allocate(model: nn.Module, device: torch.device) -> None:
    """Replaces each parameter of a model on the meta device by an uninitialised one on `device`.

    `nn.Module.to_empty` does the same, but not under FakeTensorMode.
    """
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(torch.empty_like(parameter, device=device)))


@torch.no_grad()
def truncated_normal_(weight: torch.Tensor, std: float) -> None:
    """Fills a contiguous tensor with normals truncated at two `std`, from torch's default generator.

    What lies outside is drawn again, which is exact, and several times faster than PyTorch's inverse error function.
    """
    for block in weight.view(-1).split(weight.numel() if weight.is_cuda else _CPU_BLOCK):
        block.normal_()
        outside = (block.abs() > 2).nonzero()[:, 0]
        while len(outside):
            redrawn = torch.randn(len(outside), dtype=block.dtype, device=block.device)
            block[outside] = redrawn
            outside = outside[redrawn.abs() > 2]
        block *= std


@torch.no_grad()
def initialize(model: nn.Module, init_scale: float) -> None:
    """Initialises all weights but the temperatures from torch's default generator, in place.

    `init_scale` multiplies the kernels outside the attention pools. It does nothing where weights have no values: on
    the meta device and under FakeTensorMode.
    """
    if not all(map(has_values, model.parameters())):
        return
    pooling = {m for pool in model.modules() if isinstance(pool, AttentionPool) for m in pool.children()}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            fan_in = module.in_features
            if module in pooling:
                std = 1 / (math.sqrt(fan_in) * _TRUNCATED_STD)
            else:
                std = init_scale * min(18 / fan_in, 0.02) / math.sqrt(2)
            truncated_normal_(module.weight, std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            if module.embedding_dim <= 768:
                nn.init.normal_(module.weight, std=0.02)
            else:
                nn.init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
        elif name.endswith("encoder") and hasattr(module, "cls"):
            nn.init.normal_(module.cls, std=0.02)
