"""The op a block of rows at a time through the library's matrix products: all logits never exist at once."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from reserve_kernels.contrastive.reference import scaled, scaled_backward, statistics_dtype

BLOCK_BYTES = 8 << 20
"""Size of a block of logits."""

SAFE_EXPONENT = 60.0
"""exp of a logit up to this, and a sum of 2**40 of them, neither overflow nor underflow float32."""

WORTH_BOUNDING = 1 << 20
"""Number of logits from which bounding them costs less than it saves."""


def _parts(rows: int, columns: int, itemsize: int) -> Iterator[slice]:
    """Blocks of rows with about BLOCK_BYTES of values in `columns` columns."""
    block = max(16, BLOCK_BYTES // (itemsize * max(columns, 1)))
    for start in range(0, rows, block):
        yield slice(start, min(start + block, rows))


def scaled_chunked(x: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """`scaled` with bounded temporaries: [rows, dim] -> [rows, dim]."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    for part in _parts(x.shape[0], x.shape[1], log_scale.dtype.itemsize * 4):
        out[part] = scaled(x[part], log_scale)
    return out


def scaled_chunked_backward(
    grad: torch.Tensor, x: torch.Tensor, log_scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of x [rows, dim] and of log_scale, a share from each row [rows]."""
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    shares = log_scale.new_empty(x.shape[0])
    for part in _parts(x.shape[0], x.shape[1], log_scale.dtype.itemsize * 8):
        grad_x[part], shares[part] = scaled_backward(grad[part], x[part], log_scale)
    return grad_x, shares


def _logits_are_small(x: torch.Tensor, y: torch.Tensor) -> bool:
    """Whether exp of the logits needs no maximum taken off: then one exp serves rows and columns.

    Looks at the values, which a GPU would have to be waited for: there, never.
    """
    if x.device.type != "cpu" or x.shape[0] * y.shape[0] < WORTH_BOUNDING:
        return False
    largest = torch.linalg.vector_norm(x, dim=1).max() * torch.linalg.vector_norm(y, dim=1).max()
    return bool(largest < SAFE_EXPONENT)


def logsumexp_chunked(x: torch.Tensor, y: torch.Tensor, both: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `logsumexp_reference`."""
    dtype = statistics_dtype(x.dtype)
    (n, m), wide = (x.shape[0], y.shape[0]), y.to(dtype)
    small = _logits_are_small(x, y)
    rows = x.new_empty(n, dtype=dtype)
    # Of small logits the sum of exp, of others its logarithm.
    columns = x.new_full((m if both else 0,), 0.0 if small else -torch.inf, dtype=dtype)
    diagonal = x.new_empty(n if both else 0, dtype=dtype)
    for part, logits in _logits(x, wide):
        if both:
            diagonal[part] = logits.diagonal(part.start)
        if small:
            torch.sum(logits.exp_(), 1, out=rows[part])
            if both:
                columns += logits.sum(0)
        else:
            torch.logsumexp(logits, 1, out=rows[part])
            if both:
                torch.logaddexp(columns, torch.logsumexp(logits, 0), out=columns)
    return (rows.log_(), columns.log_(), diagonal) if small else (rows, columns, diagonal)


def _logits(rows: torch.Tensor, columns: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Blocks of rows @ columns.T, each in the memory of the last; `columns` is in the dtype of the logits."""
    memory = None
    for part in _parts(rows.shape[0], columns.shape[0], columns.dtype.itemsize):
        if memory is None:
            memory = columns.new_empty(part.stop - part.start, columns.shape[0])
        block = memory[: part.stop - part.start]
        yield part, torch.mm(rows[part].to(columns.dtype), columns.T, out=block)


def logsumexp_chunked_backward(
    grads: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    row_lse: torch.Tensor,
    column_lse: torch.Tensor,
    both: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of x and y; the logits are computed once more, block by block, and serve both directions."""
    by_row, by_column = (grads[0], row_lse), (grads[1], column_lse) if both else None
    if y.shape[0] > x.shape[0]:  # then only by_row: the gradient that is summed over blocks is the short one
        grad_y, grad_x = _weighted_sums(y, x, None, by_row, None)
        return grad_x, grad_y
    return _weighted_sums(x, y, by_row, by_column, grads[2] if both else None)


Softmax = tuple[torch.Tensor, ...] | None
"""Gradient of a logsumexp and its value, by row or by column."""


def _weighted_sums(
    a: torch.Tensor, b: torch.Tensor, by_row: Softmax, by_column: Softmax, diagonal: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of a and b through the logits a @ b.T, a block of rows at a time."""
    dtype = statistics_dtype(a.dtype)
    wide = b.to(dtype)
    small = _logits_are_small(a, b)
    grad_a = torch.empty_like(a, memory_format=torch.contiguous_format)
    grad_b = torch.zeros_like(wide, memory_format=torch.contiguous_format)
    turn = _weights_of_small if small else _weights
    for part, logits in _logits(a, wide):
        # Temporaries are as large as what is turned: a piece at a time.
        for piece in _parts(logits.shape[0], logits.shape[1], logits.dtype.itemsize * 4):
            rows = None if by_row is None else tuple(v[part][piece, None] for v in by_row)
            turn(logits[piece], rows, by_column)
        if diagonal is not None:
            logits.diagonal(part.start).add_(diagonal[part])
        grad_a[part] = logits @ wide
        grad_b.addmm_(logits.T, a[part].to(dtype))
    return grad_a, grad_b.to(b.dtype)


def _weights(logits: torch.Tensor, by_row: Softmax, by_column: Softmax) -> None:
    """Turns logits into their gradients, from softmaxes along rows, columns or both."""
    one, *other = (pair for pair in (by_row, by_column) if pair is not None)
    second = [(logits - lse).exp_().mul_(grad) for grad, lse in other]
    logits.sub_(one[1]).exp_().mul_(one[0])
    for weights in second:
        logits.add_(weights)


def _weights_of_small(logits: torch.Tensor, by_row: Softmax, by_column: Softmax) -> None:
    """The same with one exp: exp(l - r) g + exp(l - c) h = exp(l) (exp(-r) g + exp(-c) h)."""
    factors = [grad * torch.exp(-lse) for grad, lse in (p for p in (by_row, by_column) if p is not None)]
    logits.exp_().mul_(sum(factors[1:], start=factors[0]))
