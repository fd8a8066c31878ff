"""contrastive_loss a block of rows at a time, through PyTorch's matrix products: never all logits at once."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from reserve_kernels.contrastive.reference import scaled, scaled_backward

BLOCK_BYTES = 8 << 20
"""Size of a block of logits."""

SAFE_EXPONENT = 60.0
"""The exp of a logit up to this, and a sum of 2**40 of them, fit float32 without overflow or underflow."""

WORTH_SHARING = 1 << 20
"""Number of logits from which sharing one exp is worth its rounding: the loss of a single pair is not quite 0."""


def _parts(rows: int, columns: int, itemsize: int) -> Iterator[slice]:
    """Blocks of rows with about BLOCK_BYTES of values in `columns` columns."""
    block = max(16, BLOCK_BYTES // (itemsize * max(columns, 1)))
    for start in range(0, rows, block):
        yield slice(start, min(start + block, rows))


def _scaled(x: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """`scaled` in log_scale's dtype, with bounded temporaries: [rows, dim] -> [rows, dim]."""
    out = x.new_empty(x.shape, dtype=log_scale.dtype)
    for part in _parts(x.shape[0], x.shape[1], log_scale.dtype.itemsize * 8):
        out[part] = scaled(x[part], log_scale)
    return out


def _logits_are_small(log_scale: torch.Tensor, count: int) -> bool:
    """Whether exp of `count` logits is safe without subtracting the maximum: then one exp serves rows and columns.

    Rows have at most unit length before the temperature, so its value decides. Never on a GPU, where reading it would
    make the host wait.
    """
    return log_scale.device.type == "cpu" and count >= WORTH_SHARING and bool(log_scale.exp() < SAFE_EXPONENT)


def _logits(
    a: torch.Tensor, b: torch.Tensor, log_scale: torch.Tensor
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Yields, a block at a time, which rows of a, those rows scaled, and their logits with b, which is `_scaled`.

    All blocks share one buffer of logits.
    """
    memory = None
    # Scaling a row and its gradient takes a few temporaries of its length.
    for part in _parts(a.shape[0], max(b.shape[0], 4 * a.shape[1]), b.dtype.itemsize):
        rows = scaled(a[part], log_scale).to(b.dtype)
        if memory is None:
            memory = b.new_empty(rows.shape[0], b.shape[0])
        yield part, rows, torch.mm(rows, b.T, out=memory[: rows.shape[0]])


def logsumexp_chunked(
    x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor, both: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `logsumexp_reference`."""
    by_row = x.shape[0] >= y.shape[0]  # The longer side is cut into blocks; with `both` they are equally long.
    a, b = (x, y) if by_row else (y, x)
    by_column = both or not by_row
    small = _logits_are_small(log_scale, x.shape[0] * y.shape[0])
    rows = log_scale.new_empty(a.shape[0] if by_row else 0)
    # The sum of exp for small logits, its logarithm for others. In float64, so that not every block rounds it.
    columns = log_scale.new_full((b.shape[0] if by_column else 0,), 0.0 if small else -torch.inf, dtype=torch.float64)
    diagonal = log_scale.new_empty(x.shape[0] if both else 0)
    for part, _, logits in _logits(a, _scaled(b, log_scale), log_scale):
        if both:
            diagonal[part] = logits.diagonal(part.start)
        if small:
            logits.exp_()
        if by_row:
            (torch.sum if small else torch.logsumexp)(logits, 1, out=rows[part])
        if by_column and small:
            columns += logits.sum(0)
        elif by_column:
            torch.logaddexp(columns, torch.logsumexp(logits, 0), out=columns)
    if small:
        rows.log_()
        columns.log_()
    columns = columns.to(log_scale.dtype)
    return rows if by_row else columns, columns if both else log_scale.new_empty(0), diagonal


Softmax = tuple[torch.Tensor, ...] | None
"""Gradient of a logsumexp and its value, by row or by column."""


def logsumexp_chunked_backward(
    grads: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    log_scale: torch.Tensor,
    row_lse: torch.Tensor,
    column_lse: torch.Tensor,
    both: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, y and log_scale; the logits are computed once more, block by block, for both directions."""
    by_row, by_column = (grads[0], row_lse), (grads[1], column_lse) if both else None
    if y.shape[0] > x.shape[0]:  # then only by_row: the gradient that is summed over blocks is the short one
        grad_y, grad_x, grad_log_scale = _weighted_sums(y, x, log_scale, None, by_row, None)
        return grad_x, grad_y, grad_log_scale
    return _weighted_sums(x, y, log_scale, by_row, by_column, grads[2] if both else None)


def _weighted_sums(
    a: torch.Tensor,
    b: torch.Tensor,
    log_scale: torch.Tensor,
    by_row: Softmax,
    by_column: Softmax,
    diagonal: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of a, b and log_scale through the logits of a and b, a block of rows at a time."""
    wide = _scaled(b, log_scale)
    convert = _weights_of_small if _logits_are_small(log_scale, a.shape[0] * b.shape[0]) else _weights
    grad_a = torch.empty_like(a, memory_format=torch.contiguous_format)
    sum_b, grad_log_scale = torch.zeros_like(wide), torch.zeros_like(log_scale, dtype=torch.float64)
    for part, rows, logits in _logits(a, wide, log_scale):
        # A piece at a time: temporaries are as large as what is converted.
        for piece in _parts(logits.shape[0], logits.shape[1], logits.dtype.itemsize * 4):
            of_rows = None if by_row is None else tuple(v[part][piece, None] for v in by_row)
            convert(logits[piece], of_rows, by_column)
        if diagonal is not None:
            logits.diagonal(part.start).add_(diagonal[part])
        grad_a[part], shares = scaled_backward(logits @ wide, a[part], log_scale)
        sum_b.addmm_(logits.T, rows)
        grad_log_scale += shares.sum()
    # In place if the dtype is the same.
    grad_b = sum_b if sum_b.dtype == b.dtype else torch.empty_like(b, memory_format=torch.contiguous_format)
    for part in _parts(b.shape[0], b.shape[1], wide.dtype.itemsize * 8):
        grad_b[part], shares = scaled_backward(sum_b[part], b[part], log_scale)
        grad_log_scale += shares.sum()
    return grad_a, grad_b, grad_log_scale.to(log_scale.dtype)


def _weights(logits: torch.Tensor, by_row: Softmax, by_column: Softmax) -> None:
    """Overwrites logits with their gradients, through softmaxes along rows, columns or both."""
    one, *other = (pair for pair in (by_row, by_column) if pair is not None)
    second = [(logits - lse).exp_().mul_(grad) for grad, lse in other]
    logits.sub_(one[1]).exp_().mul_(one[0])
    for weights in second:
        logits.add_(weights)


def _weights_of_small(logits: torch.Tensor, by_row: Softmax, by_column: Softmax) -> None:
    """`_weights` with one exp: exp(l - r) g + exp(l - c) h = exp(l) (exp(-r) g + exp(-c) h)."""
    factors = [grad * torch.exp(-lse) for grad, lse in (p for p in (by_row, by_column) if p is not None)]
    logits.exp_().mul_(sum(factors[1:], start=factors[0]))
