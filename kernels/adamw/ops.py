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
    if keys and weights[0].is_cuda and torch.cuda.is_current_stream_capturing():
        raise RuntimeError("BF16AdamW: a CUDA graph would repeat the random bits of stochastic rounding; step outside")
    settings = Settings(learning_rate, beta1, beta2, eps, weight_decay, m_scale, v_scale)
    BACKENDS[backend].step(weights, gradients, m, v, starts, settings, keys, firsts)


@adamw_.register_fake
def _(*_arguments: object) -> None:
    return None
