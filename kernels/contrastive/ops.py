"""The two differentiable ops that contrastive_loss is made of, registered with PyTorch."""

from __future__ import annotations

import torch

from reserve_kernels.contrastive.chunked import (
    logsumexp_chunked,
    logsumexp_chunked_backward,
    scaled_chunked,
    scaled_chunked_backward,
)
from reserve_kernels.contrastive.reference import (
    logsumexp_reference,
    logsumexp_reference_backward,
    scaled,
    scaled_backward,
    statistics_dtype,
)
from reserve_kernels.precision import without_autocast


@torch.library.custom_op("reserve_kernels::contrastive_scale", mutates_args=())
@without_autocast
def contrastive_scale(x: torch.Tensor, log_scale: torch.Tensor, backend: str) -> torch.Tensor:
    """Rows of x [rows, dim] as unit vectors times exp(min(log_scale, ln 100) / 2), in x's dtype, contiguous."""
    if backend == "triton":
        from reserve_kernels.contrastive.triton import scaled_triton

        return scaled_triton(x, log_scale)
    return scaled_chunked(x, log_scale) if backend == "chunked" else scaled(x, log_scale).contiguous()


@contrastive_scale.register_fake
def _(x, log_scale, backend):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op("reserve_kernels::contrastive_scale_backward", mutates_args=())
@without_autocast
def contrastive_scale_backward(
    grad: torch.Tensor, x: torch.Tensor, log_scale: torch.Tensor, backend: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of x, and of log_scale a share from each row [rows]."""
    if backend == "triton":
        from reserve_kernels.contrastive.triton import scaled_triton_backward

        return scaled_triton_backward(grad, x, log_scale)
    run = scaled_chunked_backward if backend == "chunked" else scaled_backward
    grad_x, shares = run(grad, x, log_scale)
    return grad_x.contiguous(), shares


@contrastive_scale_backward.register_fake
def _(grad, x, log_scale, backend):
    return torch.empty_like(x, memory_format=torch.contiguous_format), log_scale.new_empty(x.shape[0])


def _scale_setup(ctx, inputs, output):
    x, log_scale, ctx.backend = inputs
    ctx.save_for_backward(x, log_scale)


def _scale_backward(ctx, grad):
    x, log_scale = ctx.saved_tensors
    grad_x, shares = torch.ops.reserve_kernels.contrastive_scale_backward(grad, x, log_scale, ctx.backend)
    return grad_x, shares.sum(), None


contrastive_scale.register_autograd(_scale_backward, setup_context=_scale_setup)


@torch.library.custom_op("reserve_kernels::contrastive_logsumexp", mutates_args=())
@without_autocast
def contrastive_logsumexp(
    x: torch.Tensor, y: torch.Tensor, both: bool, backend: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """[n, dim], [m, dim] -> logsumexp of x @ y.T over y [n], over x [m], and the diagonal [n], float32 at least.

    Without `both` the last two are empty; with it n = m. No candidates give -inf.
    """
    if backend == "triton":
        from reserve_kernels.contrastive.triton import logsumexp_triton

        return logsumexp_triton(x, y, both)
    return (logsumexp_chunked if backend == "chunked" else logsumexp_reference)(x, y, both)


@contrastive_logsumexp.register_fake
def _(x, y, both, backend):
    dtype = statistics_dtype(x.dtype)
    n, m = x.shape[0], y.shape[0]
    return tuple(x.new_empty(size, dtype=dtype) for size in (n, m if both else 0, n if both else 0))


@torch.library.custom_op("reserve_kernels::contrastive_logsumexp_backward", mutates_args=())
@without_autocast
def contrastive_logsumexp_backward(
    grad_rows: torch.Tensor,
    grad_columns: torch.Tensor,
    grad_diagonal: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    row_lse: torch.Tensor,
    column_lse: torch.Tensor,
    both: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of x and y; the logits are computed again, once for both directions."""
    grads = (grad_rows, grad_columns, grad_diagonal)
    if backend == "triton":
        from reserve_kernels.contrastive.triton import logsumexp_triton_backward

        return logsumexp_triton_backward(grads, x, y, row_lse, column_lse, both)
    if backend == "chunked":
        return logsumexp_chunked_backward(grads, x, y, row_lse, column_lse, both)
    return logsumexp_reference_backward(grads, x, y, both)


@contrastive_logsumexp_backward.register_fake
def _(grad_rows, grad_columns, grad_diagonal, x, y, row_lse, column_lse, both, backend):
    contiguous = torch.contiguous_format
    return torch.empty_like(x, memory_format=contiguous), torch.empty_like(y, memory_format=contiguous)


def _logsumexp_setup(ctx, inputs, output):
    x, y, ctx.both, ctx.backend = inputs
    ctx.save_for_backward(x, y, *output[:2])


def _logsumexp_backward(ctx, *grads):
    x, y, row_lse, column_lse = ctx.saved_tensors
    both, backend = ctx.both, ctx.backend
    return (
        *torch.ops.reserve_kernels.contrastive_logsumexp_backward(*grads, x, y, row_lse, column_lse, both, backend),
        None,
        None,
    )


contrastive_logsumexp.register_autograd(_logsumexp_backward, setup_context=_logsumexp_setup)
