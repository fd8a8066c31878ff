"""The optimiser of a run: every trainable parameter in exactly one group."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from reserve.config import OptimizerConfig
from reserve_kernels import BF16AdamW


def make_optimizer(
    model: nn.Module, groups: list[dict[str, Any]], config: OptimizerConfig, *, decay_to_start: bool = False
) -> BF16AdamW:
    """BF16AdamW over `groups` (SPEC 9). Raises ValueError naming a trainable parameter that no group holds."""
    _check_covered(model, groups)
    return BF16AdamW(
        groups,
        config.learning_rate,
        betas=(config.beta_1, config.beta_2),
        eps=config.eps,
        weight_decay=config.weight_decay_rate,
        moments="bfloat16" if config.use_bfloat16_adam else "float32",
        bias_correction=config.do_bias_correction,
        decay_to_start=decay_to_start,
    )


def zero_missing_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Gives parameters that decay toward their start a gradient of zero where the loss does not reach them.

    They then decay as the others do, as in the reference, rather than stay as they are (SPEC 10.3).
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get("decay_to_start") else ():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)


def clip_gradients(optimizer: torch.optim.Optimizer, max_norm: float) -> torch.Tensor:
    """The joint norm of all gradients of `optimizer`, on all ranks, which are scaled down to `max_norm` unless it is 0.

    The norm stays on the device: the host does not wait for it. If it is not finite, clipping leaves zeros and NaNs;
    BF16AdamW takes both for zeros.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters])
    if hasattr(norm, "full_tensor"):  # each rank has the norm of its shards
        norm = norm.full_tensor()
    if max_norm:
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm


def _check_covered(model: nn.Module, groups: list[dict[str, Any]]) -> None:
    held = {id(parameter) for group in groups for parameter in group["params"]}
    forgotten = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in held]
    if forgotten:
        names = ", ".join(forgotten[:5]) + (", …" if len(forgotten) > 5 else "")
        raise ValueError(
            f"{len(forgotten)} trainable parameters are in no group of the optimiser and would never change: {names}; "
            "add them to the task's parameter_groups, or set requires_grad to False"
        )
