"""What bias_quick_gelu means, in plain PyTorch (SPEC 4); exact in float64."""

from __future__ import annotations

import torch

STEEPNESS = 1.702


def arithmetic_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that results for inputs of `dtype` are computed in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _preactivation(x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    dtype = arithmetic_dtype(x.dtype)
    return x.to(dtype) if bias is None else x.to(dtype) + bias.to(dtype)


def quick_gelu_reference(x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x [..., features], bias [features] or None -> x's shape and dtype."""
    z = _preactivation(x, bias)
    return (z * torch.sigmoid(STEEPNESS * z)).to(x.dtype).contiguous()


def quick_gelu_reference_backward(
    grad: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of x, in its dtype, and of bias [features] (empty without one), in the dtype of the arithmetic."""
    z = _preactivation(x, bias)
    s = torch.sigmoid(STEEPNESS * z)
    # s * (1 - s) first: STEEPNESS * z may overflow where it is 0.
    grad_z = grad.to(z.dtype) * (s + s * (1 - s) * z * STEEPNESS)
    grad_bias = z.new_empty(0) if bias is None else grad_z[None].flatten(0, -2).sum(0)
    return grad_z.to(x.dtype).contiguous(), grad_bias
