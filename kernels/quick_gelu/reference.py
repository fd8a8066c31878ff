"""What bias_quick_gelu means, in plain PyTorch (SPEC 4); exact in float64."""

from __future__ import annotations

from collections.abc import Iterator

import torch

STEEPNESS = 1.702
CPU_PIECE = 1 << 15
"""Elements that a CPU thread handles at a time, so that all passes but the first find them in its cache."""


def arithmetic_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that results for inputs of `dtype` are computed in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def quick_gelu_reference(x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x [..., features], bias [features] or None -> x's shape and dtype."""
    out = x.new_empty(x.shape)
    for piece, result in _pieces(x, out):
        z = _preactivation(piece, bias)
        result.copy_(z.mul_((STEEPNESS * z).sigmoid_()))
    return out


def quick_gelu_reference_backward(
    grad: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of x, in its dtype, and of bias [features] (empty without one), in the dtype of the arithmetic."""
    grad_x = x.new_empty(x.shape)
    grad_bias = x.new_zeros(0 if bias is None else bias.shape, dtype=arithmetic_dtype(x.dtype))
    for grad_piece, piece, result in _pieces(grad, x, grad_x):
        z = _preactivation(piece, bias)
        s = (STEEPNESS * z).sigmoid_()
        # s + 1.702 z s (1 - s), but s (1 - s) first: 1.702 z may overflow where that is 0.
        slope = torch.addcmul(s, s, s, value=-1).mul_(z).mul_(STEEPNESS).add_(s)
        grad_z = slope.mul_(grad_piece)
        result.copy_(grad_z)
        if bias is not None:
            grad_bias += grad_z.sum(0)
    return grad_x, grad_bias


def _preactivation(x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x + bias in the dtype of the arithmetic, in memory of its own."""
    dtype = arithmetic_dtype(x.dtype)
    return x.to(dtype, copy=True) if bias is None else x.to(dtype) + bias.to(dtype)


def _pieces(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """The tensors, all of one shape and not empty, as rows [rows, features], a few rows at a time on the CPU.

    The last tensor is contiguous: its pieces share its memory.
    """
    x = tensors[-1]
    rows = [t.reshape(-1, t.shape[-1] if t.dim() else 1) for t in tensors]
    features = rows[0].shape[1]
    size = max(1, CPU_PIECE * torch.get_num_threads() // features) if x.is_cpu else x.numel() // features
    yield from zip(*(t.split(size) for t in rows), strict=True)
