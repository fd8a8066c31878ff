"""The sigmoid loss of few pairs on the CPU, as one function of autograd that stores the gradients of all logits.

Up to LARGEST logits what is between the products takes as long as they do. This makes about as many calls as the loss
written out in PyTorch, without blocks, pieces and candidates that have no pair.
"""

from __future__ import annotations

import torch
from torch.nn.functional import softplus

from reserve_kernels.contrastive.blocks import passes_for
from reserve_kernels.contrastive.reference import NO_MAX_LOG_SCALE, Scaling
from reserve_kernels.contrastive.sigmoid import STRAIGHT_FROM
from reserve_kernels.contrastive.sigmoid_ops import contrastive_sigmoid_backward
from reserve_kernels.precision import without_autocast
from reserve_kernels.transforms import transforming

LARGEST = 512 * 512
"""Number of logits up to which this is faster than blocks (docs/kernels/contrastive.md)."""


def is_small(x: torch.Tensor) -> bool:
    """Whether x [pairs, dim] has few pairs, and is on a CPU."""
    return x.device.type == "cpu" and 0 < x.shape[0] ** 2 <= LARGEST


class Small(torch.autograd.Function):
    """(x, y, log_scale, bias, scaling) of plain tensors -> loss, x_to_y, y_to_x, as `ContrastiveLoss` has them."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor, bias: torch.Tensor, scaling: Scaling):
        losses, scale, *kept = _forward(x, y, log_scale, bias, scaling)
        ctx.scaling, ctx.scale = scaling, scale
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, y, log_scale, bias, *kept)
        rows = losses.sum(1)
        return rows.mean(), rows, losses.sum(0)

    @staticmethod
    def backward(ctx, of_loss: torch.Tensor | None, of_rows: torch.Tensor | None, of_columns: torch.Tensor | None):
        x, y, log_scale, bias, of_logits, wide_x, wide_y = ctx.saved_tensors
        mean = log_scale.new_zeros(()) if of_loss is None else of_loss / x.shape[0]
        grads = (grad for grad in (of_loss, of_rows, of_columns) if grad is not None)
        several = any(torch._C._functorch.is_legacy_batchedtensor(grad) for grad in grads)
        if of_rows is None and of_columns is None and not (several or transforming() or torch.is_grad_enabled()):
            return *_backward(mean, x, y, log_scale, of_logits, wide_x, wide_y, ctx.scale, ctx.scaling), None
        # The op computes the logits again. It refuses a double backward, and takes several gradients at once.
        of_rows = mean.expand(x.shape[0]) + (0 if of_rows is None else of_rows)
        of_columns = None if of_columns is None else of_columns.contiguous()
        nothing = log_scale.new_empty(0)
        tensors = (x, y, log_scale, bias, None, None, None, nothing, nothing, nothing)
        settings = (False, True, True, "chunked", *ctx.scaling)
        return *contrastive_sigmoid_backward(of_rows, of_columns, *tensors, *settings), None


@without_autocast
def _forward(
    x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor, bias: torch.Tensor, scaling: Scaling
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The losses of all logits, what multiplies products of vectors that are taken as they are, the gradients of the
    losses by their logits, and the vectors that were multiplied.
    """
    scale, dtype = None, log_scale.dtype
    if scaling.normalize:
        passes = passes_for(x, scaling)
        wide_x, wide_y = log_scale.new_empty(x.shape), log_scale.new_empty(y.shape)
        passes.scale(x, log_scale, wide_x)
        passes.scale(y, log_scale, wide_y)
    else:
        wide_x, wide_y = x.to(dtype), y.to(dtype)
        clamped = log_scale if scaling.max_log_scale == NO_MAX_LOG_SCALE else log_scale.clamp(max=scaling.max_log_scale)
        scale = clamped.exp()
    logits = torch.mm(wide_x, wide_y.T)
    if scale is not None:
        logits.mul_(scale)
    # -log sigmoid(l) is softplus(-l): with the logits of pairs negated, one softplus makes all losses.
    pairs = logits.add_(bias).diagonal().neg_()
    losses = softplus(logits, threshold=STRAIGHT_FROM)
    logits.sigmoid_()
    pairs.neg_()
    return losses, scale, logits, wide_x, wide_y


@without_autocast
def _backward(
    mean: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    log_scale: torch.Tensor,
    of_logits: torch.Tensor,
    wide_x: torch.Tensor,
    wide_y: torch.Tensor,
    scale: torch.Tensor | None,
    scaling: Scaling,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, y, log_scale and bias, given `mean`, that of the total of all losses."""
    factor = mean if scale is None else mean * scale
    grad_x = torch.mm(of_logits, wide_y).mul_(factor)
    grad_y = torch.mm(of_logits.T, wide_x).mul_(factor)
    of_bias = of_logits.sum() * mean
    if scaling.normalize:
        passes, shares = passes_for(x, scaling), log_scale.new_empty(2, x.shape[0])
        out_x, out_y = (
            grad if side.dtype == grad.dtype else torch.empty_like(side, memory_format=torch.contiguous_format)
            for side, grad in ((x, grad_x), (y, grad_y))
        )
        passes.scale_backward(grad_x, x, log_scale, out_x, shares[0])
        passes.scale_backward(grad_y, y, log_scale, out_y, shares[1])
        grad_x, grad_y = out_x, out_y
    else:
        shares = torch.linalg.vecdot(grad_x, wide_x)
        if scaling.max_log_scale != NO_MAX_LOG_SCALE:
            shares = shares * (log_scale <= scaling.max_log_scale)
        grad_x, grad_y = grad_x.to(x.dtype), grad_y.to(y.dtype)
    # In float64, so that cancelling shares do not lose it.
    return grad_x, grad_y, shares.sum(dtype=torch.float64).to(log_scale.dtype), of_bias
