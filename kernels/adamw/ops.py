"""The step of BF16AdamW over lists of tensors, registered with PyTorch."""

from __future__ import annotations

import torch

from reserve_kernels.adamw.availability import BACKENDS
from reserve_kernels.adamw.reference import Settings


@torch.library.custom_op("reserve_kernels::adamw_", mutates_args=("weights", "m", "v"))
def adamw_(
    weights: list[torch.Tensor],
    gradients: list[torch.Tensor],
    m: list[torch.Tensor],
    v: list[torch.Tensor],
    starts: list[torch.Tensor],
    learning_rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    m_scale: float,
    v_scale: float,
    keys: list[int],
    firsts: list[int],
    backend: str,
) -> None:
    settings = Settings(learning_rate, beta1, beta2, eps, weight_decay, m_scale, v_scale)
    BACKENDS[backend].step(weights, gradients, m, v, starts, settings, keys, firsts)


@adamw_.register_fake
def _(*_arguments: object) -> None:
    return None
