"""Triton kernels of contrastive_loss: row scaling, logsumexp of tiles of logits, and the gradients of a block of them.

Vectors are float16, bfloat16 or float32; everything else is float32. Rows are contiguous. Scaled vectors have `width`
elements, the dimension rounded up to a multiple of BLOCK_D with zeros, so that no tile of them is partly outside.
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
    """The divisor of a row, so that its squares do not overflow, and 1 / sqrt(sum of squares + eps) after it."""
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
    x,
    log_scale,
    out,
    dim,
    width,
    epsilon: tl.constexpr,
    limit: tl.constexpr,
    max_log_scale: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One row a program: out = x / divisor * norm * temperature, from dim to width zeros."""
    row = tl.program_id(0).to(tl.int64)
    divisor, norm = _row_norm(x + row * dim, dim, epsilon, limit, BLOCK)
    factor = norm * _temperature(log_scale, max_log_scale)
    for start in range(0, width, BLOCK):
        place = start + tl.arange(0, BLOCK)
        value = _load_row(x + row * dim, start, dim, BLOCK) / divisor * factor
        tl.store(out + row * width + place, value.to(out.dtype.element_ty), mask=place < width)


@triton.jit
def scale_backward_kernel(
    grad,
    grad_unit,
    x,
    log_scale,
    grad_x,
    shares,
    dim,
    width,
    epsilon: tl.constexpr,
    limit: tl.constexpr,
    max_log_scale: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One row a program, from its gradient grad * grad_unit, whose rows have width elements: the gradient of the row
    of x, and its share of the gradient of log_scale.
    """
    row = tl.program_id(0).to(tl.int64)
    grad += row * width
    x += row * dim
    divisor, norm = _row_norm(x, dim, epsilon, limit, BLOCK)
    factor = _temperature(log_scale, max_log_scale) * tl.load(grad_unit)
    products = tl.zeros([BLOCK], tl.float32)
    for start in range(0, dim, BLOCK):
        products += _load_row(grad, start, dim, BLOCK) * (_load_row(x, start, dim, BLOCK) / divisor * norm)
    along = tl.sum(products, 0)
    for start in range(0, dim, BLOCK):
        place = start + tl.arange(0, BLOCK)
        unit = _load_row(x, start, dim, BLOCK) / divisor * norm
        value = (_load_row(grad, start, dim, BLOCK) - unit * along) * (norm / divisor * factor)
        tl.store(grad_x + row * dim + place, value.to(grad_x.dtype.element_ty), mask=place < dim)
    inside = tl.load(log_scale) <= max_log_scale
    tl.store(shares + row, along * tl.where(inside, factor / 2, 0.0))


@triton.jit
def _tile_of_program(n, m, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, GROUP: tl.constexpr):
    """Row and column tile of this program: groups of row tiles move along the columns, so that operands stay in L2."""
    program, column_tiles, row_tiles = tl.program_id(0), tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    first = program // (GROUP * column_tiles) * GROUP
    height = tl.minimum(row_tiles - first, GROUP)
    within = program % (GROUP * column_tiles)
    return first + within % height, within // height


@triton.jit
def _cross(row, height: tl.constexpr, column, width: tl.constexpr):
    """Whether a tile that starts at this row and column crosses the diagonal."""
    return (row < column + width) & (column < row + height)


@triton.jit
def _tile_of_logits(
    x, y, rows, columns, n, m, width, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr
):
    """x[rows] @ y[columns].T; rows and columns past the end repeat the last one."""
    d = tl.arange(0, BLOCK_D)
    x_place = x + tl.minimum(rows, n - 1).to(tl.int64)[:, None] * width + d[None, :]
    y_place = y + tl.minimum(columns, m - 1).to(tl.int64)[None, :] * width + d[:, None]
    logits = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    for start in range(0, width, BLOCK_D):
        logits = tl.dot(tl.load(x_place + start), tl.load(y_place + start), logits, input_precision="ieee")
    return logits


@triton.jit
def _exponentials(logits, valid, axis: tl.constexpr):
    """Sum of exp(logits - largest) of the valid logits along an axis, and the largest."""
    largest = tl.max(tl.where(valid, logits, -float("inf")), axis)
    return tl.sum(tl.where(valid, tl.exp(logits - tl.expand_dims(largest, axis)), 0.0), axis), largest


@triton.jit
def _tile_in_memory(logits, rows, columns, n, m, stride):
    """The tile of stored logits, whose rows have `stride` elements; anything past the end."""
    place = logits + rows.to(tl.int64)[:, None] * stride + columns[None, :]
    return tl.load(place, mask=(rows < n)[:, None] & (columns < m)[None, :], other=0.0).to(tl.float32)


@triton.jit
def _subtracted(of_rows, of_columns, BY_ROW: tl.constexpr, BY_COLUMN: tl.constexpr):
    """What is subtracted from the logits of a tile before they are stored: the logsumexp of their row in the tile or of
    their column there, the smaller one with both. No logit is larger, and those whose weight counts are near it.
    """
    if BY_ROW and BY_COLUMN:
        subtracted = tl.minimum(of_rows[:, None], of_columns[None, :])
    elif BY_ROW:
        subtracted = of_rows[:, None]
    else:
        subtracted = of_columns[None, :]
    return subtracted


@triton.jit(do_not_specialize=["first", "n", "m", "parts_stride"])
def logsumexp_kernel(
    x,
    y,
    stored,
    row_parts,
    column_parts,
    diagonal,
    first,
    n,
    m,
    width,
    stride,
    parts_stride,
    BY_ROW: tl.constexpr,
    BY_COLUMN: tl.constexpr,
    GIVEN: tl.constexpr,
    STORE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    GROUP: tl.constexpr,
):
    """One tile of logits a program: logsumexp of its rows to row_parts [column tiles, parts_stride] and of its columns
    to column_parts [row tiles, m]. With both, diagonal [n] is written by the tiles that it crosses; row 0 is row
    `first` of all rows there.

    The logits are x @ y.T or, if they are GIVEN, those in x, whose rows have `width` elements. With STORE they are
    written to `stored`, whose rows have `stride` elements, less what _subtracted says: large weights are then rounded
    least.
    """
    row_tile, column_tile = _tile_of_program(n, m, BLOCK_N, BLOCK_M, GROUP)
    rows = row_tile * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = column_tile * BLOCK_M + tl.arange(0, BLOCK_M)
    if GIVEN:
        logits = _tile_in_memory(x, rows, columns, n, m, width)
    else:
        logits = _tile_of_logits(x, y, rows, columns, n, m, width, BLOCK_N, BLOCK_M, BLOCK_D)
    if BY_ROW and BY_COLUMN and _cross(first + row_tile * BLOCK_N, BLOCK_N, column_tile * BLOCK_M, BLOCK_M):
        positive = tl.sum(tl.where((first + rows)[:, None] == columns[None, :], logits, 0.0), 1)
        place = first + rows
        here = (place >= column_tile * BLOCK_M) & (place < (column_tile + 1) * BLOCK_M) & (rows < n)
        tl.store(diagonal + rows, positive, mask=here)
    of_rows, of_columns = logits, logits
    if BY_COLUMN:
        total, largest = _exponentials(logits, (rows < n)[:, None], 0)
        of_columns = largest + tl.log(total)
        tl.store(column_parts + row_tile.to(tl.int64) * m + columns, of_columns, mask=columns < m)
    if BY_ROW:
        total, largest = _exponentials(logits, (columns < m)[None, :], 1)
        of_rows = largest + tl.log(total)
        tl.store(row_parts + column_tile.to(tl.int64) * parts_stride + rows, of_rows, mask=rows < n)
    if STORE:
        relative = logits - _subtracted(of_rows, of_columns, BY_ROW, BY_COLUMN)
        place = stored + rows.to(tl.int64)[:, None] * stride + columns[None, :]
        mask = (rows < n)[:, None] & (columns < stride)[None, :]
        tl.store(place, relative.to(stored.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["tiles", "count"])
def merge_kernel(parts, out, tiles, count, BLOCK_T: tl.constexpr, BLOCK: tl.constexpr):
    """out[i] = logsumexp of parts[:, i], parts [tiles, count], for BLOCK numbers a program."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tile = tl.arange(0, BLOCK_T)
    largest = tl.full([BLOCK], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, tiles, BLOCK_T):
        valid = (start + tile < tiles)[:, None] & (place < count)[None, :]
        at = (start + tile).to(tl.int64)[:, None] * count + place[None, :]
        part = tl.load(parts + at, mask=valid, other=-float("inf"))
        # Finite even for columns past the end, so that no difference of infinities makes a NaN.
        next_largest = tl.maximum(tl.maximum(largest, tl.max(part, 0)), -1e38)
        total = total * tl.exp(largest - next_largest) + tl.sum(tl.exp(part - next_largest[None, :]), 0)
        largest = next_largest
    tl.store(out + place, largest + tl.log(total), mask=place < count)


@triton.jit(do_not_specialize=["n", "m", "parts_stride"])
def weights_kernel(
    a,
    b,
    row_grad,
    row_lse,
    column_grad,
    column_lse,
    diagonal_grad,
    grad_unit,
    weights,
    row_parts,
    column_parts,
    first,
    n,
    m,
    width,
    stride,
    parts_stride,
    BY_ROW: tl.constexpr,
    BY_COLUMN: tl.constexpr,
    GIVEN: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    GROUP: tl.constexpr,
):
    """The gradient of the logits a @ b.T in units of grad_unit, written to weights [n, m] with rows of `stride`
    elements, one tile per program. Elements from m on get meaningless values, so that stores can be whole vectors.
    If the logits are GIVEN, `a` and the parts are what logsumexp_kernel stored of them, in rows of `width` elements.

    Row 0 of `a` is row `first` of all rows, which places the diagonal if both directions are computed.
    """
    row_tile, column_tile = _tile_of_program(n, m, BLOCK_N, BLOCK_M, GROUP)
    rows = row_tile * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = column_tile * BLOCK_M + tl.arange(0, BLOCK_M)
    if GIVEN:
        logits = _tile_in_memory(a, rows, columns, n, m, width)
        of_rows, of_columns = logits, logits
        if BY_ROW:
            of_rows = tl.load(row_parts + column_tile.to(tl.int64) * parts_stride + rows, mask=rows < n, other=0.0)
        if BY_COLUMN:
            of_columns = tl.load(column_parts + row_tile.to(tl.int64) * m + columns, mask=columns < m, other=0.0)
        logits += _subtracted(of_rows, of_columns, BY_ROW, BY_COLUMN)
    else:
        logits = _tile_of_logits(a, b, rows, columns, n, m, width, BLOCK_N, BLOCK_M, BLOCK_D)
    scale = 1.0 / tl.load(grad_unit)
    value = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    if BY_COLUMN:
        lse = tl.load(column_lse + columns, mask=columns < m, other=0.0)
        value = tl.exp(logits - lse[None, :])
        value *= (tl.load(column_grad + columns, mask=columns < m, other=0.0) * scale)[None, :]
    if BY_ROW:
        lse = tl.load(row_lse + rows, mask=rows < n, other=0.0)
        grad = tl.load(row_grad + rows, mask=rows < n, other=0.0) * scale
        value += tl.exp(logits - lse[:, None]) * grad[:, None]
    if BY_ROW and BY_COLUMN and _cross(first + row_tile * BLOCK_N, BLOCK_N, column_tile * BLOCK_M, BLOCK_M):
        grad = tl.load(diagonal_grad + rows, mask=rows < n, other=0.0) * scale
        value += tl.where((first + rows)[:, None] == columns[None, :], grad[:, None], 0.0)
    place = weights + rows.to(tl.int64)[:, None] * stride + columns[None, :]
    tl.store(place, value.to(weights.dtype.element_ty), mask=(rows < n)[:, None] & (columns < stride)[None, :])
