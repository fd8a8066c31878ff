"""The differentiable op that contrastive_loss is made of, registered with PyTorch."""

from __future__ import annotations

import torch

from reserve_kernels.contrastive.availability import BACKENDS
from reserve_kernels.contrastive.reference import statistics_dtype
from reserve_kernels.precision import without_autocast
from reserve_kernels.transforms import refuse_double_backward


@torch.library.custom_op("reserve_kernels::contrastive_logsumexp", mutates_args=())
@without_autocast
def contrastive_logsumexp(
    x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor, both: bool, backend: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `logsumexp_reference`. For the backward pass it saves x and y, and nothing else of their size."""
    return BACKENDS[backend].forward(x, y, log_scale, both)


@contrastive_logsumexp.register_fake
def _(x, y, log_scale, both, backend):
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
    log_scale: torch.Tensor,
    row_lse: torch.Tensor,
    column_lse: torch.Tensor,
    both: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, y and log_scale. It computes the logits again, once for both directions."""
    grads = (grad_rows, grad_columns, grad_diagonal)
    return BACKENDS[backend].backward(grads, x, y, log_scale, row_lse, column_lse, both)


@contrastive_logsumexp_backward.register_fake
def _(grad_rows, grad_columns, grad_diagonal, x, y, log_scale, row_lse, column_lse, both, backend):
    contiguous = torch.contiguous_format
    return (
        torch.empty_like(x, memory_format=contiguous),
        torch.empty_like(y, memory_format=contiguous),
        torch.empty_like(log_scale),
    )


def _setup(ctx, inputs, output):
    x, y, log_scale, ctx.both, ctx.backend = inputs
    ctx.save_for_backward(x, y, log_scale, *output[:2])


def _backward(ctx, *grads):
    gradients = torch.ops.reserve_kernels.contrastive_logsumexp_backward(
        *grads, *ctx.saved_tensors, ctx.both, ctx.backend
    )
    return *gradients, None, None


contrastive_logsumexp.register_autograd(_backward, setup_context=_setup)
contrastive_logsumexp_backward.register_autograd(refuse_double_backward("contrastive_loss"))
