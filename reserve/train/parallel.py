"""The only place that wraps a model for several devices. A new way to shard is a function here and a row in MODES."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from reserve.train.distributed import Ranks

LossFunction = Callable[[nn.Module, Any], Any]


class _LossModule(nn.Module):
    """Model and loss as one module.

    Every use of a parameter lies inside its forward pass, also that of a temperature or a head: wrappers gather
    parameters and hook gradients only there.
    """

    def __init__(self, model: nn.Module, loss: LossFunction) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, batch: Any) -> Any:
        return self.loss(self.model, batch)


def _unwrapped(module: nn.Module, ranks: Ranks, uses_every_parameter: bool) -> nn.Module:
    if ranks.world_size > 1:
        raise ValueError(f"parallel mode 'none' would train {ranks.world_size} models apart; use 'ddp'")
    return module


def _ddp(module: nn.Module, ranks: Ranks, uses_every_parameter: bool) -> nn.Module:
    # Looking for unused parameters walks the graph in every step; not looking waits for their gradients for ever.
    return DistributedDataParallel(module, process_group=ranks.group, find_unused_parameters=not uses_every_parameter)


MODES: dict[str, Callable[[nn.Module, Ranks, bool], nn.Module]] = {"none": _unwrapped, "ddp": _ddp}
"""The ways to wrap a module for the ranks that train it, by name."""


def without_gradient_sync(module: Any) -> AbstractContextManager[None]:
    """A context whose forward and backward passes leave each rank its own gradients.

    The next backward pass outside of it averages what has accumulated.
    """
    return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()


def parallelize(
    model: nn.Module,
    loss: LossFunction,
    ranks: Ranks,
    *,
    uses_every_parameter: bool = False,
    mode: str | None = None,
) -> nn.Module:
    """A module whose forward pass is `loss(model, batch)`, wrapped for `ranks`.

    `mode` is a name in MODES; by default "ddp" on several ranks and "none" on one. The model is moved to no device and
    keeps its parameters' names. `uses_every_parameter` promises that each step's loss depends on every parameter.
    Raises ValueError for a mode that does not exist or cannot train on these ranks.
    """
    if mode is None:
        mode = "ddp" if ranks.world_size > 1 else "none"
    if mode not in MODES:
        raise ValueError(f"parallel mode must be one of {', '.join(map(repr, MODES))}; got {mode!r}")
    return MODES[mode](_LossModule(model, loss), ranks, uses_every_parameter)
