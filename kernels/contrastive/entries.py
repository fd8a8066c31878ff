"""Single logits: those of sparse targets, differentiable, registered with PyTorch."""

from __future__ import annotations

import torch

from reserve_kernels.contrastive.blocks import passes_for
from reserve_kernels.contrastive.passes import parts
from reserve_kernels.contrastive.reference import MAX_LOG_SCALE, Scaling, statistics_dtype
from reserve_kernels.contrastive.targets import Targets, check_values
from reserve_kernels.precision import without_autocast
from reserve_kernels.transforms import refuse_double_backward


def _wide(x: torch.Tensor, log_scale: torch.Tensor, scaling: Scaling) -> torch.Tensor:
    out = log_scale.new_empty(x.shape)
    passes_for(x, scaling).scale(x, log_scale, out)
    return out


@torch.library.custom_op("reserve_kernels::contrastive_entries", mutates_args=())
@without_autocast
def contrastive_entries(
    x: torch.Tensor,
    y: torch.Tensor,
    log_scale: torch.Tensor,
    offsets: torch.Tensor,
    columns: torch.Tensor,
    name: str = "targets",
    normalize: bool = True,
    max_log_scale: float = MAX_LOG_SCALE,
) -> torch.Tensor:
    """The logits of the entries of sparse rows, [entries] in the statistics' dtype. Errors call the rows `name`."""
    targets = Targets(offsets, columns)
    check_values(name, targets, len(y), fractions=False)
    rows = targets.rows()
    scaling = Scaling(normalize, max_log_scale)
    wide_x, wide_y = _wide(x, log_scale, scaling), _wide(y, log_scale, scaling)
    out = log_scale.new_empty(rows.shape)
    # Both vectors of each entry are copied: a block of entries at a time.
    for part in parts(rows.shape[0], 2 * x.shape[1], out.dtype.itemsize):
        torch.sum(wide_x[rows[part]].mul_(wide_y[columns[part]]), 1, out=out[part])
    return out


@contrastive_entries.register_fake
def _(x, y, log_scale, offsets, columns, name="targets", normalize=True, max_log_scale=MAX_LOG_SCALE):
    return x.new_empty(columns.shape, dtype=statistics_dtype(x.dtype))


@torch.library.custom_op("reserve_kernels::contrastive_entries_backward", mutates_args=())
@without_autocast
def contrastive_entries_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    log_scale: torch.Tensor,
    offsets: torch.Tensor,
    columns: torch.Tensor,
    normalize: bool = True,
    max_log_scale: float = MAX_LOG_SCALE,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, y and log_scale."""
    scaling, rows = Scaling(normalize, max_log_scale), Targets(offsets, columns).rows()
    sides, grads = (x, y), []
    shares = log_scale.new_empty(x.shape[0] + y.shape[0])
    for side, of_side, places in ((0, shares[: x.shape[0]], rows), (1, shares[x.shape[0] :], columns)):
        vectors, other = sides[side], _wide(sides[1 - side], log_scale, scaling)
        others = columns if side == 0 else rows
        total = log_scale.new_zeros(vectors.shape)
        for part in parts(rows.shape[0], 2 * x.shape[1], total.dtype.itemsize):
            products = other[others[part]].mul_(grad[part, None])
            # What has no gradient passes none on, be the other vector NaN.
            total.index_add_(0, places[part], products.masked_fill_(grad[part, None] == 0, 0))
        out = torch.empty_like(vectors, memory_format=torch.contiguous_format)
        passes_for(vectors, scaling).scale_backward(total, vectors, log_scale, out, of_side)
        grads.append(out)
    return grads[0], grads[1], shares.sum(dtype=torch.float64).to(log_scale.dtype)


@contrastive_entries_backward.register_fake
def _(grad, x, y, log_scale, *_rest):
    sides = [torch.empty_like(side, memory_format=torch.contiguous_format) for side in (x, y)]
    return *sides, torch.empty_like(log_scale)


def _setup(ctx, inputs, output):
    *tensors, _, ctx.normalize, ctx.max_log_scale = inputs
    ctx.save_for_backward(*tensors)


def _backward_of_op(ctx, grad):
    settings = (ctx.normalize, ctx.max_log_scale)
    backward = torch.ops.reserve_kernels.contrastive_entries_backward
    return *backward(grad, *ctx.saved_tensors, *settings), *[None] * 5


contrastive_entries.register_autograd(_backward_of_op, setup_context=_setup)
contrastive_entries_backward.register_autograd(refuse_double_backward("contrastive_loss"))
