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
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `logsumexp_reference`, and what the back end stores for the backward pass besides its inputs and the results:
    a tensor without gradients, empty if the back end computes logits again.
    """
    return BACKENDS[backend].forward(x, y, log_scale, both)


@contrastive_logsumexp.register_fake
def _(x, y, log_scale, both, backend):
    dtype = statistics_dtype(x.dtype)
    n, m = x.shape[0], y.shape[0]
    results = tuple(x.new_empty(size, dtype=dtype) for size in (n, m if both else 0, n if both else 0))
    return *results, BACKENDS[backend].stored(x, y)


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
    stored: torch.Tensor,
    both: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, y and log_scale. It does not change what is stored."""
    grads = (grad_rows, grad_columns, grad_diagonal)
    return BACKENDS[backend].backward(grads, x, y, log_scale, row_lse, column_lse, stored, both)


@contrastive_logsumexp_backward.register_fake
def _(grad_rows, grad_columns, grad_diagonal, x, y, log_scale, row_lse, column_lse, stored, both, backend):
    contiguous = torch.contiguous_format
    return (
        torch.empty_like(x, memory_format=contiguous),
        torch.empty_like(y, memory_format=contiguous),
        torch.empty_like(log_scale),
    )


def _setup(ctx, inputs, output):
    x, y, log_scale, ctx.both, ctx.backend = inputs
    row_lse, column_lse, _, stored = output
    ctx.mark_non_differentiable(stored)
    # Otherwise autograd makes zeros as large as what is stored.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, y, log_scale, row_lse, column_lse, stored)


def _backward(ctx, of_rows, of_columns, of_diagonal, _):
    x, y, log_scale, row_lse, column_lse, stored = ctx.saved_tensors
    diagonal = row_lse if ctx.both else column_lse  # as many numbers
    grads = (
        torch.zeros_like(values) if grad is None else grad
        for grad, values in [(of_rows, row_lse), (of_columns, column_lse), (of_diagonal, diagonal)]
    )
    gradients = torch.ops.reserve_kernels.contrastive_logsumexp_backward(
        *grads, x, y, log_scale, row_lse, column_lse, stored, ctx.both, ctx.backend
    )
    return *gradients, None, None


contrastive_logsumexp.register_autograd(_backward, setup_context=_setup)
contrastive_logsumexp_backward.register_autograd(refuse_double_backward("contrastive_loss"))
