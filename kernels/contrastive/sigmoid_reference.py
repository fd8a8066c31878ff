"""What the sigmoid loss means, in plain PyTorch: exact in float64."""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from reserve_kernels.contrastive.reference import scaled, scaled_backward, statistics_dtype
from reserve_kernels.contrastive.sigmoid import Gradients, Problem, Sums, Upstream


def sigmoid_reference(problem: Problem, by_column: bool) -> Sums:
    """As `sigmoid.sigmoid_sums`, with all logits in memory."""
    logits, targets = _logits(problem), _targets(problem)
    losses = -(targets * logsigmoid(logits) + (1 - targets) * logsigmoid(-logits))
    return Sums(losses.sum(1), losses.sum(0) if by_column else None)


def sigmoid_reference_gradients(problem: Problem, upstream: Upstream, dtype: torch.dtype) -> Gradients:
    """As `sigmoid.sigmoid_gradients`."""
    a, b, log_scale, _, scaling, *_ = problem
    logits, targets = _logits(problem), _targets(problem)
    weights = (1 - targets) * torch.sigmoid(logits) - targets * torch.sigmoid(-logits)
    weights = weights * (upstream.rows[:, None] + (0 if upstream.columns is None else upstream.columns))
    wide_a, wide_b = (scaled(side, log_scale, scaling).to(log_scale.dtype) for side in (a, b))
    grad_a, of_a = scaled_backward(weights @ wide_b, a.to(dtype), log_scale, scaling)
    grad_b, of_b = scaled_backward(weights.T @ wide_a, b.to(dtype), log_scale, scaling)
    return Gradients(grad_a.contiguous(), grad_b.contiguous(), of_a.sum() + of_b.sum(), weights.sum())


def _logits(problem: Problem) -> torch.Tensor:
    a, b, log_scale, bias, scaling, *_ = problem
    dtype = statistics_dtype(a.dtype)
    return scaled(a, log_scale, scaling).to(dtype) @ scaled(b, log_scale, scaling).to(dtype).T + bias


def _targets(problem: Problem) -> torch.Tensor:
    """The targets of all logits [n, m]."""
    n, m = problem.a.shape[0], problem.b.shape[0]
    matrix = problem.log_scale.new_zeros(n, m)
    if problem.targets is not None:
        weights = 1.0 if problem.targets.weights is None else problem.targets.weights.to(matrix.dtype)
        matrix[problem.targets.rows(), problem.targets.columns] = weights
    elif problem.paired:
        matrix.fill_diagonal_(1.0)
    return matrix
