"""The differentiable op that the sigmoid loss is made of, registered with PyTorch."""

from __future__ import annotations

from typing import Any

import torch

from reserve_kernels.contrastive.reference import MAX_LOG_SCALE, Scaling, statistics_dtype
from reserve_kernels.contrastive.sigmoid import (
    Gradients,
    Problem,
    Upstream,
    sigmoid_gradients,
    sigmoid_sums,
    sigmoid_sums_and_gradients,
)
from reserve_kernels.contrastive.sigmoid_reference import sigmoid_reference, sigmoid_reference_gradients
from reserve_kernels.contrastive.targets import Targets, check_values
from reserve_kernels.precision import without_autocast
from reserve_kernels.transforms import refuse_double_backward, transforming

WAYS = ("forward", "chunked", "reference")
"""Where the gradients are made: in the forward pass, for the total; in the backward pass, from logits that are computed
again; or there with all logits in memory."""


def _problem(
    x: torch.Tensor,
    y: torch.Tensor,
    log_scale: torch.Tensor,
    bias: torch.Tensor,
    offsets: torch.Tensor | None,
    columns: torch.Tensor | None,
    weights: torch.Tensor | None,
    paired: bool,
    normalize: bool,
    max_log_scale: float,
) -> Problem:
    targets = None if offsets is None or columns is None else Targets(offsets, columns, weights)
    return Problem(x, y, log_scale, bias, Scaling(normalize, max_log_scale), paired, targets)


@without_autocast
def _forward(
    x: torch.Tensor,
    y: torch.Tensor,
    log_scale: torch.Tensor,
    bias: torch.Tensor,
    offsets: torch.Tensor | None,
    columns: torch.Tensor | None,
    weights: torch.Tensor | None,
    paired: bool,
    by_column: bool,
    way: str,
    normalize: bool = True,
    max_log_scale: float = MAX_LOG_SCALE,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The losses' total, their sums by row [n] and with `by_column` by column [m], and for the way "forward" the
    gradients of the total: of x, of y, and of log_scale and bias [2], which have no gradient themselves.
    """
    problem = _problem(x, y, log_scale, bias, offsets, columns, weights, paired, normalize, max_log_scale)
    if problem.targets is not None:
        check_values("targets", problem.targets, len(y), fractions=True)
    none = [log_scale.new_empty(0) for _ in range(4)]
    if way == "forward":
        sums, found = sigmoid_sums_and_gradients(problem, by_column)
        stored = [found.a, found.b, torch.stack((found.log_scale, found.bias))]
    else:
        sums = (sigmoid_reference if way == "reference" else sigmoid_sums)(problem, by_column)
        stored = none[:3]
    total = sums.rows.sum(dtype=torch.float64).to(log_scale.dtype)
    return total, sums.rows, none[3] if sums.columns is None else sums.columns, stored[0], stored[1], stored[2]


contrastive_sigmoid = torch.library.custom_op("reserve_kernels::contrastive_sigmoid", _forward, mutates_args=())


@contrastive_sigmoid.register_fake
def _(
    x,
    y,
    log_scale,
    bias,
    offsets,
    columns,
    weights,
    paired,
    by_column,
    way,
    normalize=True,
    max_log_scale=MAX_LOG_SCALE,
):
    dtype = statistics_dtype(x.dtype)
    n, m = x.shape[0], y.shape[0]
    stored = [x.shape, y.shape, (2,)] if way == "forward" else [(0,)] * 3
    return tuple(x.new_empty(size, dtype=dtype) for size in ((), (n,), (m if by_column else 0,), *stored))


@without_autocast
def _backward(
    of_rows: torch.Tensor,
    of_columns: torch.Tensor | None,
    x: torch.Tensor,
    y: torch.Tensor,
    log_scale: torch.Tensor,
    bias: torch.Tensor,
    offsets: torch.Tensor | None,
    columns: torch.Tensor | None,
    weights: torch.Tensor | None,
    stored_x: torch.Tensor,
    stored_y: torch.Tensor,
    stored_scalars: torch.Tensor,
    of_total_alone: bool,
    paired: bool,
    by_column: bool,
    way: str,
    normalize: bool = True,
    max_log_scale: float = MAX_LOG_SCALE,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, y, log_scale and bias, given those of the sums by row and column; or that of the total in
    `of_rows` [1], by which what is stored is multiplied.
    """
    if of_total_alone:
        of_scale, of_bias = (stored_scalars * of_rows).unbind()
        sides = [(stored * of_rows).to(x.dtype) for stored in (stored_x, stored_y)]
        return sides[0], sides[1], of_scale.clone(), of_bias.clone()
    problem = _problem(x, y, log_scale, bias, offsets, columns, weights, paired, normalize, max_log_scale)
    run = sigmoid_reference_gradients if way == "reference" else sigmoid_gradients
    found: Gradients = run(problem, Upstream(of_rows, of_columns), x.dtype)
    return found.a, found.b, found.log_scale, found.bias


contrastive_sigmoid_backward = torch.library.custom_op(
    "reserve_kernels::contrastive_sigmoid_backward", _backward, mutates_args=()
)


@contrastive_sigmoid_backward.register_fake
def _(of_rows, of_columns, x, y, log_scale, bias, *_rest):
    sides = [torch.empty_like(side, memory_format=torch.contiguous_format) for side in (x, y)]
    return *sides, torch.empty_like(log_scale), torch.empty_like(bias)


def _setup(ctx, inputs, output):
    *tensors, ctx.paired, ctx.by_column, ctx.way, ctx.normalize, ctx.max_log_scale = inputs
    ctx.direct = False
    stored = output[3:]
    ctx.mark_non_differentiable(*stored)
    # Otherwise it could not be told whether the gradient of the total is the only one.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, *stored)


def _backward_of_op(ctx, of_total, of_rows, of_columns, *_):
    saved = ctx.saved_tensors
    alone = of_rows is None and of_columns is None and ctx.way == "forward"
    if alone:
        of_rows = of_total.reshape(1)
    else:
        zero = saved[2].new_zeros(())
        of_total = zero if of_total is None else of_total
        of_rows = (zero if of_rows is None else of_rows) + of_total.expand(saved[0].shape[0])
        of_columns = None if of_columns is None else of_columns.contiguous()
    settings = (ctx.paired, ctx.by_column, ctx.way, ctx.normalize, ctx.max_log_scale)
    # The op refuses a double backward, which autograd watches for; it also is what a compiler sees, and a
    # transformation. Otherwise the dispatcher's time is saved.
    direct = ctx.direct and not torch.is_grad_enabled() and not transforming()
    run: Any = _backward if direct else torch.ops.reserve_kernels.contrastive_sigmoid_backward
    return *run(of_rows, of_columns, *saved, alone, *settings), *[None] * 8


contrastive_sigmoid.register_autograd(_backward_of_op, setup_context=_setup)
contrastive_sigmoid_backward.register_autograd(refuse_double_backward("contrastive_loss"))


class Direct(torch.autograd.Function):
    """The op for plain tensors (`is_plain`), without the dispatcher, which takes as long as 100 pairs."""

    @staticmethod
    def forward(ctx, *inputs):
        output = _forward(*inputs)
        _setup(ctx, inputs, output)
        ctx.direct = True
        return output

    @staticmethod
    def backward(ctx, *grads):
        if any(grad is not None and torch._C._functorch.is_legacy_batchedtensor(grad) for grad in grads):
            ctx.direct = False
        return _backward_of_op(ctx, *grads)
