"""contrastive_loss: in-batch contrastive loss in both directions, over the candidates of all ranks (SPEC 8)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist

from reserve_kernels.backends import Backend, choose, register, runs_anywhere
from reserve_kernels.checks import FLOATING, check_same_device, check_tensor
from reserve_kernels.contrastive.chunked import row_logsumexp_chunked, row_logsumexp_chunked_backward
from reserve_kernels.contrastive.gather import gather_rows
from reserve_kernels.contrastive.reference import (
    row_logsumexp_reference,
    row_logsumexp_reference_backward,
    scaled,
    statistics_dtype,
)

__all__ = ["ContrastiveLoss", "contrastive_loss"]

OP = "contrastive_loss"
register(OP, [Backend("chunked", runs_anywhere), Backend("reference", runs_anywhere)])


class ContrastiveLoss(NamedTuple):
    """`loss`: mean over both directions of the mean over pairs, a scalar; `x_to_y`, `y_to_x`: [pairs] per-pair losses.

    All are float32, or float64 for float64 inputs. With no pairs `loss` is 0.
    """

    loss: torch.Tensor
    x_to_y: torch.Tensor
    y_to_x: torch.Tensor


def contrastive_loss(
    x: torch.Tensor,
    y: torch.Tensor,
    log_scale: torch.Tensor | float,
    *,
    x_extra: torch.Tensor | None = None,
    y_extra: torch.Tensor | None = None,
    group: dist.ProcessGroup | None = None,
    backend: str = "auto",
) -> ContrastiveLoss:
    """Contrastive loss of pairs (x[i], y[i]) against all candidates, in both directions (SPEC 8).

    Vectors are scaled to v / sqrt(sum v^2 + 1e-5) * exp(s / 2), s = min(log_scale, ln 100), and rounded to their
    dtype. The loss of x[i] is the logsumexp of its logits with all y and y_extra of all ranks, minus its logit with
    y[i]; the loss of y[i] likewise over all x and x_extra.

    Args:
        x, y: [pairs, dim], before normalisation; float16, bfloat16, float32 or float64, one dtype.
        log_scale: logarithm of the inverse temperature, a scalar; a tensor that requires a gradient gets one.
        x_extra, y_extra: [*, dim], candidates that are nobody's pair.
        group: process group whose ranks' vectors are all candidates, gathered with gradients; None for this process
            alone. Ranks may have different numbers of pairs. Each rank's loss is over its own pairs, and gradients are
            those of the sum of the ranks' losses: averaging parameter gradients over ranks, as DDP does, gives those
            of the mean. Gathering reads the ranks' counts on the host.
        backend: "auto" or a name from `reserve_kernels.backends()`; "chunked" never holds [pairs, candidates] at once.

    Raises:
        TypeError, ValueError: an argument has a wrong type, dtype, shape, device or value; it is named.
        RuntimeError: the named backend cannot run here.

    There is no double backward. NaN inputs give NaN losses.
    """
    _check("x", x, None)
    for name, value in [("y", y), ("x_extra", x_extra), ("y_extra", y_extra)]:
        if value is not None:
            _check(name, value, x)
    if y.shape != x.shape:
        raise ValueError(f"y must pair with x's shape {tuple(x.shape)}; got {tuple(y.shape)}")
    dtype = statistics_dtype(x.dtype)
    log_scale = torch.as_tensor(log_scale, dtype=dtype, device=x.device)
    if log_scale.numel() != 1:
        raise ValueError(f"log_scale must be a scalar; got shape {tuple(log_scale.shape)}")
    log_scale = log_scale.reshape(())
    chosen = choose(OP, backend, x.device, x.dtype)

    x, y = scaled(x, log_scale), scaled(y, log_scale)
    x_candidates = x if x_extra is None else torch.cat((x, scaled(x_extra, log_scale)))
    y_candidates = y if y_extra is None else torch.cat((y, scaled(y_extra, log_scale)))
    if group is not None:
        x_candidates, y_candidates = gather_rows(x_candidates, group), gather_rows(y_candidates, group)
    positive = (x.to(dtype) * y.to(dtype)).sum(-1)
    x_to_y = torch.ops.reserve_kernels.row_logsumexp(x, y_candidates, chosen) - positive
    y_to_x = torch.ops.reserve_kernels.row_logsumexp(y, x_candidates, chosen) - positive
    # A sum over a count of at least one, so that no pairs give 0 rather than NaN.
    loss = (x_to_y + y_to_x).sum() / (2 * max(x.shape[0], 1))
    return ContrastiveLoss(loss, x_to_y, y_to_x)


def _check(name: str, value: torch.Tensor, x: torch.Tensor | None) -> None:
    check_tensor(name, value, FLOATING if x is None else (x.dtype,))
    if value.dim() != 2:
        raise ValueError(f"{name} must be [rows, dim]; got shape {tuple(value.shape)}")
    if x is not None:
        check_same_device(name, value, "x", x)
        if value.shape[1] != x.shape[1]:
            raise ValueError(f"{name} must have x's dim {x.shape[1]}; got {value.shape[1]}")


@torch.library.custom_op("reserve_kernels::row_logsumexp", mutates_args=())
def _row_logsumexp(rows: torch.Tensor, candidates: torch.Tensor, backend: str) -> torch.Tensor:
    if backend == "chunked":
        return row_logsumexp_chunked(rows, candidates)
    return row_logsumexp_reference(rows, candidates)


@_row_logsumexp.register_fake
def _(rows, candidates, backend):
    return rows.new_empty(rows.shape[0], dtype=statistics_dtype(rows.dtype))


@torch.library.custom_op("reserve_kernels::row_logsumexp_backward", mutates_args=())
def _row_logsumexp_backward(
    grad: torch.Tensor, rows: torch.Tensor, candidates: torch.Tensor, lse: torch.Tensor, backend: str
) -> tuple[torch.Tensor, torch.Tensor]:
    if backend == "chunked":
        return row_logsumexp_chunked_backward(grad, rows, candidates, lse)
    return row_logsumexp_reference_backward(grad, rows, candidates)


@_row_logsumexp_backward.register_fake
def _(grad, rows, candidates, lse, backend):
    contiguous = torch.contiguous_format
    return torch.empty_like(rows, memory_format=contiguous), torch.empty_like(candidates, memory_format=contiguous)


def _setup_context(ctx, inputs, output):
    rows, candidates, ctx.backend = inputs
    ctx.save_for_backward(rows, candidates, output)


def _backward(ctx, grad):
    rows, candidates, lse = ctx.saved_tensors
    grads = torch.ops.reserve_kernels.row_logsumexp_backward(grad, rows, candidates, lse, ctx.backend)
    return *grads, None


_row_logsumexp.register_autograd(_backward, setup_context=_setup_context)
