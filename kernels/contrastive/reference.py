"""What contrastive_loss means, in plain PyTorch: exact in float64, and differentiable by autograd."""

from __future__ import annotations

import math

import torch

MAX_LOG_SCALE = math.log(100.0)


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    """Dtype of norms, logits and losses for operands of `dtype`."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def scaled(x: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """Unit vectors times exp(s / 2), s = min(log_scale, ln 100), rounded to x's dtype once."""
    dtype = statistics_dtype(x.dtype)
    wide = x.to(dtype)
    norm = torch.rsqrt(wide.square().sum(-1, keepdim=True) + 1e-5)
    return (wide * norm * torch.exp(log_scale.to(dtype).clamp(max=MAX_LOG_SCALE) / 2)).to(x.dtype)


def row_logsumexp_reference(rows: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """logsumexp over the candidates of rows @ candidates.T: [n, dim], [m, dim] -> [n], float32 at least."""
    dtype = statistics_dtype(rows.dtype)
    return torch.logsumexp(rows.to(dtype) @ candidates.to(dtype).T, dim=-1)


def row_logsumexp_reference_backward(
    grad: torch.Tensor, rows: torch.Tensor, candidates: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of rows and candidates, given that of the logsumexp [n]."""
    dtype = statistics_dtype(rows.dtype)
    rows_wide, candidates_wide = rows.to(dtype), candidates.to(dtype)
    weights = torch.softmax(rows_wide @ candidates_wide.T, dim=-1) * grad[:, None].to(dtype)
    return (weights @ candidates_wide).to(rows.dtype), (weights.T @ rows_wide).to(candidates.dtype)
