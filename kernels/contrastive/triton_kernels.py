"""Triton kernels of contrastive_loss: row scaling, logsumexp of tiles of logits, and the gradients of a block of them.

Operands are float16, bfloat16 or float32; everything else is float32. Rows are contiguous.
"""

# Triton's language is not Python to a type checker.
# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _load_row(row, start, dim, BLOCK: tl.constexpr):
    place = start + tl.arange(0, BLOCK)
    return tl.load(row + place, mask=place < dim, other=0.0).to(tl.float32)


@triton.jit
def _row_norm(row, dim, epsilon: tl.constexpr, limit: tl.constexpr, BLOCK: tl.constexpr):
    """What a row is divided by so that its squares do not overflow, and 1 / sqrt(sum of squares + eps) after that."""
    largest = tl.zeros([BLOCK], tl.float32)
    for start in range(0, dim, BLOCK):
        largest = tl.maximum(largest, tl.abs(_load_row(row, start, dim, BLOCK)))
    divisor = tl.max(largest, 0)
    divisor = tl.where(divisor > limit, divisor, 1.0)
    squares = tl.zeros([BLOCK], tl.float32)
    for start in range(0, dim, BLOCK):
        x = _load_row(row, start, dim, BLOCK) / divisor
        squares += x * x
    return divisor, 1.0 / tl.sqrt(tl.sum(squares, 0) + epsilon / divisor / divisor)


@triton.jit
def _temperature(log_scale, max_log_scale: tl.constexpr):
    s = tl.load(log_scale)
    # Not tl.minimum, which loses NaN.
    return tl.exp(tl.where(s > max_log_scale, max_log_scale, s) / 2)


@triton.jit
def scale_kernel(
    x, log_scale, out, dim, epsilon: tl.constexpr, limit: tl.constexpr, max_log_scale: tl.constexpr, BLOCK: tl.constexpr
):
    """One row a program: out = x / divisor * norm * temperature."""
    row = tl.program_id(0).to(tl.int64) * dim
    divisor, norm = _row_norm(x + row, dim, epsilon, limit, BLOCK)
    factor = norm * _temperature(log_scale, max_log_scale)
    for start in range(0, dim, BLOCK):
        place = start + tl.arange(0, BLOCK)
        value = _load_row(x + row, start, dim, BLOCK) / divisor * factor
        tl.store(out + row + place, value.to(out.dtype.element_ty), mask=place < dim)


@triton.jit
def scale_backward_kernel(
    grad,
    x,
    log_scale,
    grad_x,
    shares,
    dim,
    epsilon: tl.constexpr,
    limit: tl.constexpr,
    max_log_scale: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One row a program: the gradient of the row, and its share of the gradient of log_scale."""
    row = tl.program_id(0).to(tl.int64) * dim
    divisor, norm = _row_norm(x + row, dim, epsilon, limit, BLOCK)
    factor = _temperature(log_scale, max_log_scale)
    products = tl.zeros([BLOCK], tl.float32)
    for start in range(0, dim, BLOCK):
        unit = _load_row(x + row, start, dim, BLOCK) / divisor * norm
        products += _load_row(grad + row, start, dim, BLOCK) * unit
    along = tl.sum(products, 0)
    for start in range(0, dim, BLOCK):
        place = start + tl.arange(0, BLOCK)
        unit = _load_row(x + row, start, dim, BLOCK) / divisor * norm
        value = (_load_row(grad + row, start, dim, BLOCK) - unit * along) * (norm / divisor * factor)
        tl.store(grad_x + row + place, value.to(grad_x.dtype.element_ty), mask=place < dim)
    inside = tl.load(log_scale) <= max_log_scale
    tl.store(shares + tl.program_id(0), along * tl.where(inside, factor / 2, 0.0))


@triton.jit
def _tile_of_program(n, m, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, GROUP: tl.constexpr):
    """Row and column tile of this program: groups of row tiles walk along the columns, so that operands stay in L2."""
    program, column_tiles, row_tiles = tl.program_id(0), tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    first = program // (GROUP * column_tiles) * GROUP
    height = tl.minimum(row_tiles - first, GROUP)
    within = program % (GROUP * column_tiles)
    return first + within % height, within // height


@triton.jit
def _tile_of_logits(
    x,
    y,
    rows,
    columns,
    n,
    m,
    dim,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    EVEN: tl.constexpr,
):
    """x[rows] @ y[columns].T; rows and columns past the end repeat earlier ones."""
    d = tl.arange(0, BLOCK_D)
    x_place = x + (rows % n).to(tl.int64)[:, None] * dim + d[None, :]
    y_place = y + (columns % m).to(tl.int64)[None, :] * dim + d[:, None]
    logits = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    for start in range(0, dim, BLOCK_D):
        if EVEN:
            a, b = tl.load(x_place + start), tl.load(y_place + start)
        else:
            a = tl.load(x_place + start, mask=(start + d < dim)[None, :], other=0.0)
            b = tl.load(y_place + start, mask=(start + d < dim)[:, None], other=0.0)
        logits = tl.dot(a, b, logits, input_precision="ieee")
    return logits


@triton.jit
def logsumexp_kernel(
    x,
    y,
    row_parts,
    column_parts,
    diagonal,
    n,
    m,
    dim,
    BOTH: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    EVEN: tl.constexpr,
    GROUP: tl.constexpr,
):
    """One tile of logits a program: logsumexp of its rows to row_parts [column tiles, n] and, with BOTH, of its
    columns to column_parts [row tiles, m]; diagonal [n] is written by the tiles that it crosses.
    """
    row_tile, column_tile = _tile_of_program(n, m, BLOCK_N, BLOCK_M, GROUP)
    rows = row_tile * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = column_tile * BLOCK_M + tl.arange(0, BLOCK_M)
    logits = _tile_of_logits(x, y, rows, columns, n, m, dim, BLOCK_N, BLOCK_M, BLOCK_D, EVEN)
    if BOTH:
        on_diagonal = rows[:, None] == columns[None, :]
        if (row_tile * BLOCK_N < (column_tile + 1) * BLOCK_M) & (column_tile * BLOCK_M < (row_tile + 1) * BLOCK_N):
            positive = tl.sum(tl.where(on_diagonal, logits, 0.0), 1)
            here = (rows >= column_tile * BLOCK_M) & (rows < (column_tile + 1) * BLOCK_M) & (rows < n)
            tl.store(diagonal + rows, positive, mask=here)
        valid = tl.where((rows < n)[:, None], logits, -float("inf"))
        largest = tl.max(valid, 0)
        total = tl.sum(tl.exp(valid - largest[None, :]), 0)
        place = column_parts + row_tile.to(tl.int64) * m + columns
        tl.store(place, largest + tl.log(total), mask=columns < m)
    logits = tl.where((columns < m)[None, :], logits, -float("inf"))
    largest = tl.max(logits, 1)
    total = tl.sum(tl.exp(logits - largest[:, None]), 1)
    tl.store(row_parts + column_tile.to(tl.int64) * n + rows, largest + tl.log(total), mask=rows < n)


@triton.jit
def weights_kernel(
    a,
    b,
    row_grad,
    row_lse,
    column_grad,
    column_lse,
    diagonal_grad,
    factor,
    weights,
    first,
    n,
    m,
    dim,
    stride,
    BY_ROW: tl.constexpr,
    BY_COLUMN: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    EVEN: tl.constexpr,
    GROUP: tl.constexpr,
):
    """One tile a program of the gradient of logits a @ b.T, times `factor`, to weights [n, m] with a row stride.

    Row 0 of `a` is row `first` of all rows: where both directions are asked for, its diagonal is there.
    """
    row_tile, column_tile = _tile_of_program(n, m, BLOCK_N, BLOCK_M, GROUP)
    rows = row_tile * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = column_tile * BLOCK_M + tl.arange(0, BLOCK_M)
    logits = _tile_of_logits(a, b, rows, columns, n, m, dim, BLOCK_N, BLOCK_M, BLOCK_D, EVEN)
    scale = tl.load(factor)
    if BY_ROW:
        lse = tl.load(row_lse + rows, mask=rows < n, other=0.0)
        grad = tl.load(row_grad + rows, mask=rows < n, other=0.0) * scale
        value = tl.exp(logits - lse[:, None]) * grad[:, None]
    else:
        value = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    if BY_COLUMN:
        lse = tl.load(column_lse + columns, mask=columns < m, other=0.0)
        grad = tl.load(column_grad + columns, mask=columns < m, other=0.0) * scale
        value += tl.exp(logits - lse[None, :]) * grad[None, :]
    if BY_ROW and BY_COLUMN:
        grad = tl.load(diagonal_grad + rows, mask=rows < n, other=0.0) * scale
        value += tl.where((first + rows)[:, None] == columns[None, :], grad[:, None], 0.0)
    place = weights + rows.to(tl.int64)[:, None] * stride + columns[None, :]
    tl.store(place, value.to(weights.dtype.element_ty), mask=(rows < n)[:, None] & (columns < m)[None, :])
