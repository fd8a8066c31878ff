"""The differentiable op that contrastive_loss is made of, registered with PyTorch."""

from __future__ import annotations

from typing import Any

import torch

from reserve_kernels.contrastive.availability import BACKENDS
from reserve_kernels.contrastive.reference import MAX_LOG_SCALE, Scaling, statistics_dtype
from reserve_kernels.precision import without_autocast
from reserve_kernels.transforms import refuse_double_backward, transforming

Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@without_autocast
def forward(
    x: torch.Tensor,
    y: torch.Tensor,
    log_scale: torch.Tensor,
    both: bool,
    backend: str,
    normalize: bool = True,
    max_log_scale: float = MAX_LOG_SCALE,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `logsumexp_reference`, and what the back end stores for the backward pass besides its inputs and the results:
    a tensor without gradients, empty if the back end computes logits again.
    """
    return BACKENDS[backend].forward(x, y, log_scale, both, Scaling(normalize, max_log_scale))


@without_autocast
def _backward(
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
    normalize: bool = True,
    max_log_scale: float = MAX_LOG_SCALE,
) -> Three:
    grads, scaling = (grad_rows, grad_columns, grad_diagonal), Scaling(normalize, max_log_scale)
    return BACKENDS[backend].backward(grads, x, y, log_scale, row_lse, column_lse, stored, both, scaling)


@torch.library.custom_op("reserve_kernels::contrastive_logsumexp", mutates_args=())
def contrastive_logsumexp(
    x: torch.Tensor,
    y: torch.Tensor,
    log_scale: torch.Tensor,
    both: bool,
    backend: str,
    normalize: bool = True,
    max_log_scale: float = MAX_LOG_SCALE,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """`forward` as an op."""
    return forward(x, y, log_scale, both, backend, normalize, max_log_scale)


@contrastive_logsumexp.register_fake
def _(x, y, log_scale, both, backend, normalize=True, max_log_scale=MAX_LOG_SCALE):
    dtype = statistics_dtype(x.dtype)
    n, m = x.shape[0], y.shape[0]
    results = tuple(x.new_empty(size, dtype=dtype) for size in (n, m if both else 0, n if both else 0))
    return *results, BACKENDS[backend].stored(x, y)


@torch.library.custom_op("reserve_kernels::contrastive_logsumexp_backward", mutates_args=())
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
    normalize: bool = True,
    max_log_scale: float = MAX_LOG_SCALE,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, y and log_scale. It does not change what is stored."""
    grads = (grad_rows, grad_columns, grad_diagonal)
    saved = (x, y, log_scale, row_lse, column_lse, stored)
    return _backward(*grads, *saved, both, backend, normalize, max_log_scale)


@contrastive_logsumexp_backward.register_fake
def _(grad_rows, grad_columns, grad_diagonal, x, y, log_scale, *_rest):
    contiguous = torch.contiguous_format
    return (
        torch.empty_like(x, memory_format=contiguous),
        torch.empty_like(y, memory_format=contiguous),
        torch.empty_like(log_scale),
    )


def gradients(*arguments: Any) -> Three:
    """Those of x, y and log_scale, from what `contrastive_logsumexp_backward` takes: by that op if autograd watches, so
    that it refuses a double backward, or for several gradients at once; otherwise without the dispatcher's time.
    """
    # Of the gradients of the three outputs, any may be alone in being several.
    several = transforming() or any(torch._C._functorch.is_legacy_batchedtensor(grad) for grad in arguments[:3])
    run = contrastive_logsumexp_backward if several or torch.is_grad_enabled() else _backward
    return run(*arguments)


def _setup(ctx, inputs, output):
    x, y, log_scale, *ctx.settings = inputs
    row_lse, column_lse, _, stored = output
    ctx.mark_non_differentiable(stored)
    # Otherwise autograd makes zeros as large as what is stored.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, y, log_scale, row_lse, column_lse, stored)


def _backward_of_op(ctx, of_rows, of_columns, of_diagonal, _):
    saved = ctx.saved_tensors
    row_lse, column_lse = saved[3:5]
    # There are as many numbers on the diagonal as columns.
    grads = (
        torch.zeros_like(values) if grad is None else grad
        for grad, values in [(of_rows, row_lse), (of_columns, column_lse), (of_diagonal, column_lse)]
    )
    found = torch.ops.reserve_kernels.contrastive_logsumexp_backward(*grads, *saved, *ctx.settings)
    return *found, None, None, None, None


contrastive_logsumexp.register_autograd(_backward_of_op, setup_context=_setup)
contrastive_logsumexp_backward.register_autograd(refuse_double_backward("contrastive_loss"))
