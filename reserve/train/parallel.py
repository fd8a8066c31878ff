"""The only place that wraps a model for several devices. A new way to shard is a function here and a row in MODES."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from reserve.config import TrainConfig
from reserve.model.precision import training_dtype
from reserve.model.transformer import Layer
from reserve.train.distributed import Ranks

LossFunction = Callable[[nn.Module, Any], Any]


@dataclass(frozen=True)
class Wrapping:
    """What a mode may need to know.

    `uses_every_parameter` promises that each step's loss depends on every parameter. `dtype` is that of the layers'
    matrix products. `fsdp_ranks` is the number of ranks that share one copy of the parameters, 0 for all;
    `cpu_offload` keeps parameters, gradients and moments in host memory.
    """

    uses_every_parameter: bool = False
    dtype: torch.dtype = torch.float32
    fsdp_ranks: int = 0
    cpu_offload: bool = False

    @classmethod
    def of(cls, config: TrainConfig, ranks: Ranks, *, uses_every_parameter: bool) -> Wrapping:
        """What a run's settings say."""
        dtype = training_dtype(config, ranks.device)
        return cls(uses_every_parameter, dtype, config.fsdp_ranks, config.cpu_offload)


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


def _ddp(module: nn.Module, ranks: Ranks, wrapping: Wrapping) -> nn.Module:
    return DistributedDataParallel(
        module,
        process_group=ranks.group,
        # Looking for unused parameters walks the graph in every step; not looking waits for their gradients for ever.
        find_unused_parameters=not wrapping.uses_every_parameter,
        # Else it keeps a copy of all gradients.
        gradient_as_bucket_view=True,
    )


def _fsdp(module: nn.Module, ranks: Ranks, wrapping: Wrapping) -> nn.Module:
    """FSDP2: each layer is gathered when it runs, in the forward and in the backward pass; the rest stays gathered.

    In bfloat16 the matrices of layers are gathered in it: the numbers that autocast would give, at half the traffic.
    Their norms and biases, the embeddings and the heads are gathered in float32, and all gradients are averaged in it,
    so that a step computes what it computes under DDP.
    """
    # Imported where it is used: it is slow.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard

    sharing = wrapping.fsdp_ranks or ranks.world_size
    replicas = ranks.world_size // sharing
    sizes, names = ((sharing,), ("shard",)) if replicas == 1 else ((replicas, sharing), ("replicate", "shard"))
    mesh = init_device_mesh(ranks.device.type, sizes, mesh_dim_names=names)
    offload = CPUOffloadPolicy() if wrapping.cpu_offload else OffloadPolicy()
    module.register_forward_pre_hook(lambda _, inputs: _check_parts(inputs[0], ranks))
    # Inputs keep their dtypes: rounded rotary angles would be other positions.
    exact = MixedPrecisionPolicy(cast_forward_inputs=False)
    layers = [inner for inner in module.modules() if isinstance(inner, Layer)]
    if wrapping.dtype == torch.float32:
        for layer in layers:
            fully_shard(layer, mesh=mesh, mp_policy=exact, offload_policy=offload)
        fully_shard(module, mesh=mesh, mp_policy=exact, offload_policy=offload)
        return module

    rounded = MixedPrecisionPolicy(wrapping.dtype, torch.float32, cast_forward_inputs=False)
    vectors = {p for layer in layers for p in layer.parameters() if p.dim() < 2}
    for layer in layers:
        fully_shard(layer, mesh=mesh, mp_policy=rounded, offload_policy=offload, ignored_params=vectors)
    # A group takes the parameters of modules that can be reached from its own without passing another group.
    module.holding_vectors = nn.ModuleList(
        inner for layer in layers for inner in layer.modules() if vectors & set(inner.parameters(recurse=False))
    )
    matrices = {p for layer in layers for p in layer.parameters() if p.dim() >= 2}
    fully_shard(module, mesh=mesh, mp_policy=exact, offload_policy=offload, ignored_params=matrices)
    return module


def _check_parts(batch: Any, ranks: Ranks) -> None:
    """Raises ValueError on every rank if one of them has a part of the batch that another lacks, such as sounds.

    Ranks gather layers in the order in which they run. One that skipped an encoder would hang, or mix its layers with
    those of another encoder.
    """
    if ranks.control is None or not is_dataclass(batch):
        return
    names = [field.name for field in fields(batch)]
    counts = ranks.sum([getattr(batch, name) is not None for name in names])
    for name, count in zip(names, counts, strict=True):
        if count not in (0, ranks.world_size):
            raise ValueError(
                f"train.parallel fsdp needs batches with the same parts on all {ranks.world_size} ranks, which gather "
                f"each encoder together; got {name} on {count:.0f} of them"
            )


MODES: dict[str, Callable[[nn.Module, Ranks, Wrapping], nn.Module]] = {"ddp": _ddp, "fsdp": _fsdp}
"""The ways to wrap a module for several ranks, by name."""


def without_gradient_sync(module: Any) -> AbstractContextManager[None]:
    """A context whose forward and backward passes leave each rank its own gradients.

    The next backward pass outside of it averages what has accumulated. FSDP averages in every pass, inside as well:
    waiting would keep whole gradients.
    """
    return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()


def check_mode(mode: str, ranks: Ranks, wrapping: Wrapping) -> None:
    """Raises ValueError for a mode that does not exist or cannot train on these ranks."""
    if mode != "auto" and mode not in MODES:
        raise ValueError(f"parallel mode must be one of 'auto', {', '.join(map(repr, MODES))}; got {mode!r}")
    if wrapping.cpu_offload and ranks.device.type == "cpu":
        raise ValueError("train.cpu_offload needs a GPU: on a CPU all parameters are in host memory already")
    if wrapping.cpu_offload and ranks.world_size == 1:
        raise ValueError("train.cpu_offload needs several ranks: a single one trains without FSDP")
    if wrapping.fsdp_ranks and ranks.world_size > 1 and ranks.world_size % wrapping.fsdp_ranks:
        raise ValueError(
            f"train.fsdp_ranks must divide the number of ranks, {ranks.world_size}; got {wrapping.fsdp_ranks}"
        )


def parallelize(
    model: nn.Module,
    loss: LossFunction,
    ranks: Ranks,
    *,
    mode: str = "auto",
    wrapping: Wrapping | None = None,
) -> nn.Module:
    """A module whose forward pass is `loss(model, batch)`, wrapped for `ranks`.

    `mode` is a name in MODES or "auto", which is "ddp". A single rank needs no wrapping, whatever the mode. The model
    is moved to no device and keeps its parameters' names; "fsdp" replaces the parameters by sharded ones. Raises what
    `check_mode` raises.
    """
    wrapping = wrapping or Wrapping()
    check_mode(mode, ranks, wrapping)
    module = _LossModule(model, loss)
    if ranks.world_size == 1:
        return module
    return MODES["ddp" if mode == "auto" else mode](module, ranks, wrapping)
