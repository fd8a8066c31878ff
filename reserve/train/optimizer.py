"""The optimiser of a run: every trainable parameter in exactly one group."""

from __future__ import annotations

from typing import Any

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


def _check_covered(model: nn.Module, groups: list[dict[str, Any]]) -> None:
    held = {id(parameter) for group in groups for parameter in group["params"]}
    forgotten = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in held]
    if forgotten:
        names = ", ".join(forgotten[:5]) + (", …" if len(forgotten) > 5 else "")
        raise ValueError(
            f"{len(forgotten)} trainable parameters are in no group of the optimiser and would never change: {names}; "
            "add them to the task's parameter_groups, or set requires_grad to False"
        )
