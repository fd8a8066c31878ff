"""Tiny models with moments, whole or sharded, to save and to load."""

from __future__ import annotations

import torch
from torch import nn

from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.decay import parameter_groups
from reserve_kernels import BF16AdamW
from tests.helpers.tiny import tiny

SMALL = tiny(vocab_size=33, vit_patch_size=16, output_grid=(2, 2))
"""33 words: a row more than ranks can share evenly."""
UNTRAINED = "span_encoder.encoder.transformer.final_norm.bias"
"""A parameter that gets no gradient, so that the optimiser has no state of it."""


def new_model(seed: int = 0) -> MerlotReserve:
    torch.manual_seed(seed)
    return MerlotReserve(SMALL)


def new_optimizer(model: nn.Module, **options: object) -> BF16AdamW:
    return BF16AdamW(parameter_groups(model, 0.1), lr=1e-3, **options)


def train_a_step(model: nn.Module, optimizer: BF16AdamW, seed: int = 0) -> None:
    """A step with the same random gradients however the model is sharded."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        gradient = torch.randn(parameter.shape, generator=generator)
        if name == UNTRAINED:
            continue
        if isinstance(parameter, DTensor):
            gradient = distribute_tensor(gradient, parameter.device_mesh, parameter.placements)
        parameter.grad = gradient
    optimizer.step()
    optimizer.zero_grad()


def trained(seed: int = 0, **options: object) -> tuple[MerlotReserve, BF16AdamW]:
    model = new_model(seed)
    optimizer = new_optimizer(model, **options)
    train_a_step(model, optimizer)
    return model, optimizer


def whole_state(model: nn.Module, optimizer: BF16AdamW) -> dict[str, torch.Tensor]:
    """Weights and state by name, put together from all ranks."""
    state = {}
    for name, parameter in model.named_parameters():
        state[name] = _whole(parameter)
        for key, value in optimizer.state.get(parameter, {}).items():
            state[f"{name}.{key}"] = _whole(value)
    return state


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    full = getattr(tensor, "full_tensor", None)
    return (tensor if full is None else full()).detach().clone()


def same_bits(ours: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == expected.keys() and all(
        ours[name].dtype == expected[name].dtype
        and torch.equal(ours[name].reshape(-1).view(torch.uint8), expected[name].reshape(-1).view(torch.uint8))
        for name in expected
    )
