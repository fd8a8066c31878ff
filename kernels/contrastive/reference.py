"""What contrastive_loss means, in plain PyTorch: exact in float64."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

MAX_LOG_SCALE = math.log(100.0)
NO_MAX_LOG_SCALE = torch.finfo(torch.float32).max
"""A bound of log_scale that is none: finite, so that it can be the argument of an op and of a clamp in float32."""
EPSILON = 1e-5


class Scaling(NamedTuple):
    """What a vector is multiplied by before the products: by default all that SPEC 8 says."""

    normalize: bool = True
    """Divide by the vector's length; otherwise the temperature alone."""
    max_log_scale: float = MAX_LOG_SCALE


STANDARD = Scaling()


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    """Dtype of norms, logits and losses for operands of `dtype`."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def squares_limit(dtype: torch.dtype) -> float:
    """Rows with larger elements are divided by the largest one before squaring, so that the sum does not overflow."""
    return math.sqrt(torch.finfo(dtype).max) / 1e4


def unit_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x / sqrt(sum x^2 + 1e-5) of each row and 1 / sqrt(sum x^2 + 1e-5) [rows, 1]; x float32 or float64."""
    largest = x.detach().abs().amax(-1, keepdim=True) if x.shape[1] else x.new_ones(x.shape[0], 1)
    divisor = torch.where(largest > squares_limit(x.dtype), largest, 1.0)
    x = x / divisor
    norm = torch.rsqrt(x.square().sum(-1, keepdim=True) + EPSILON / divisor.square())
    return x * norm, norm / divisor


def temperature(log_scale: torch.Tensor, max_log_scale: float = MAX_LOG_SCALE) -> torch.Tensor:
    """exp(s / 2), s = min(log_scale, max_log_scale): the factor of each side of a logit."""
    return torch.exp(log_scale.clamp(max=max_log_scale) / 2)


def scaled(x: torch.Tensor, log_scale: torch.Tensor, scaling: Scaling = STANDARD) -> torch.Tensor:
    """Unit vectors (or x as it is) times the temperature, rounded to x's dtype once; differentiable by autograd."""
    dtype = statistics_dtype(x.dtype)
    unit = unit_rows(x.to(dtype))[0] if scaling.normalize else x.to(dtype)
    return (unit * temperature(log_scale.to(dtype), scaling.max_log_scale)).to(x.dtype)


def scaled_backward(
    grad: torch.Tensor, x: torch.Tensor, log_scale: torch.Tensor, scaling: Scaling = STANDARD
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of x [rows, dim] and, a share from each row, of log_scale [rows]."""
    dtype = statistics_dtype(x.dtype)
    factor, grad = temperature(log_scale, scaling.max_log_scale), grad.to(dtype)
    inside = log_scale <= scaling.max_log_scale
    if not scaling.normalize:
        shares = torch.linalg.vecdot(grad, x.to(dtype))
        return (grad * factor).to(x.dtype), shares * (factor / 2) * inside
    unit, inverse_norm = unit_rows(x.to(dtype))
    along = (grad * unit).sum(-1, keepdim=True)
    grad_x = (grad - unit * along) * (inverse_norm * factor)
    return grad_x.to(x.dtype), along[:, 0] * (factor / 2) * inside


def logsumexp_reference(
    x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor, both: bool, scaling: Scaling = STANDARD
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logsumexp over y of the logits `scaled`(x) @ `scaled`(y).T [n], over x [m], and their diagonal [n].

    x [n, dim] and y [m, dim] are before normalisation, log_scale a scalar of the results' dtype, float32 at least.
    Without `both` the last two are empty; with it n = m. No candidates give -inf.
    """
    dtype = statistics_dtype(x.dtype)
    logits = scaled(x, log_scale, scaling).to(dtype) @ scaled(y, log_scale, scaling).to(dtype).T
    rows = torch.logsumexp(logits, 1)
    if not both:
        return rows, rows.new_empty(0), rows.new_empty(0)
    return rows, torch.logsumexp(logits, 0), logits.diagonal().clone()


def logsumexp_reference_backward(
    grads: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    log_scale: torch.Tensor,
    row_lse: torch.Tensor,
    column_lse: torch.Tensor,
    both: bool,
    scaling: Scaling = STANDARD,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, y and log_scale, given those of the three outputs. A row's softmax is exp(logits - row_lse), the
    logsumexp being that of the output, or one that was merged with that of other candidates.
    """
    dtype = statistics_dtype(x.dtype)
    x_wide, y_wide = (scaled(side, log_scale, scaling).to(dtype) for side in (x, y))
    logits = x_wide @ y_wide.T
    weights = torch.exp(logits - row_lse[:, None]) * grads[0][:, None]
    if both:
        weights += torch.exp(logits - column_lse) * grads[1]
        weights.diagonal().add_(grads[2])
    # Not rounded to float16 before they are normalised: gradients that normalising makes fit can overflow it.
    grad_x, of_x = scaled_backward(weights @ y_wide, x, log_scale, scaling)
    grad_y, of_y = scaled_backward(weights.T @ x_wide, y, log_scale, scaling)
    return grad_x.contiguous(), grad_y.contiguous(), of_x.sum() + of_y.sum()
