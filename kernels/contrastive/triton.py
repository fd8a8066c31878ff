"""Launches the Triton kernels of contrastive_loss; PyTorch's matrix products compute the gradients' products.

A program computes a tile of logits and keeps only its logsumexp by row and by column: "triton" computes the logits
again in the backward pass. "dense" stores them too, in float16 for half-precision vectors, less the logsumexp of their
row or column in the tile: the losses do not depend on what is stored, and large weights are rounded least.

The gradient of the logits is materialised WEIGHT_BYTES at a time, in the operands' dtype, small enough to stay in the
L2 cache of an H100 until both products have read it. Every sum has a fixed order, so that the op is deterministic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton

from reserve_kernels.contrastive.products import add_product, product
from reserve_kernels.contrastive.reference import (
    EPSILON,
    MAX_LOG_SCALE,
    STANDARD,
    Scaling,
    scaled,
    scaled_backward,
    squares_limit,
)
from reserve_kernels.contrastive.triton_kernels import (
    logsumexp_kernel,
    merge_kernel,
    scale_backward_kernel,
    scale_kernel,
    weights_kernel,
)

WEIGHT_BYTES = 32 << 20
"""Memory for gradients of logits that are computed again."""

STORED_WEIGHT_BYTES = 32 << 20
"""Memory for gradients of stored logits."""

LIBRARY_LOGITS = False
"""Whether stored logits come from the library's products, a block in float32 at a time, and not from Triton's tiles."""

LIBRARY_BLOCK_BYTES = 32 << 20
"""Size of such a block, which stays in the L2 cache until it is read."""

ONE_DIRECTION: dict[str, int] = {}
"""Launch options that replace a tile's where only rows or only columns are asked for."""

MERGE_CONSTANTS = {"BLOCK_T": 32, "BLOCK": 64}
MERGE_WARPS = 4

LARGEST_WEIGHT = 2.0**14
"""The largest gradient of a loss is scaled to this in a block of weights: three times it, for both directions and the
diagonal, is below float16's largest number, and the rest is as far from its smallest as possible."""

SMALLEST_GRADIENT = 2.0**-100
"""Gradients that are all below this are not scaled up further: the inverse would overflow."""

SCALE_CONSTANTS = {
    "epsilon": EPSILON,
    "limit": squares_limit(torch.float32),
    "max_log_scale": MAX_LOG_SCALE,
    "BLOCK": 1024,
}
SCALE_WARPS = 4


@dataclass(frozen=True)
class Tiles:
    """Block sizes along rows, columns and the dimension, and the compiler's warps and stages."""

    rows: int
    columns: int
    dim: int
    num_warps: int
    num_stages: int

    def constants(self) -> dict[str, int]:
        """The kernels' compile-time arguments."""
        return {"BLOCK_N": self.rows, "BLOCK_M": self.columns, "BLOCK_D": self.dim, "GROUP": 8}

    def options(self, both: bool) -> dict[str, int]:
        """The launch options of a kernel for both directions, or for one."""
        return {"num_warps": self.num_warps, "num_stages": self.num_stages} | ({} if both else ONE_DIRECTION)

    def width(self, dim: int) -> int:
        """The length of scaled vectors: the dimension rounded up to whole blocks."""
        return triton.cdiv(dim, self.dim) * self.dim


def tiles(dtype: torch.dtype, architecture: int) -> Tiles:
    """The tiles for operands of `dtype` on an architecture (80 for compute capability 8.0 …)."""
    if dtype == torch.float32:
        return Tiles(64, 64, 32, num_warps=4, num_stages=2)
    if architecture < 90:
        return Tiles(128, 128, 32, num_warps=8, num_stages=3)
    return Tiles(128, 128, 64, num_warps=8, num_stages=4)


def _tiles_for(x: torch.Tensor) -> Tiles:
    # The interpreter takes about the same time for a tile of any size.
    if x.device.type != "cuda":
        return Tiles(64, 64, 64, num_warps=4, num_stages=1)
    major, minor = torch.cuda.get_device_capability(x.device)
    return tiles(x.dtype, 10 * major + minor)


def _scaled(x: torch.Tensor, log_scale: torch.Tensor, scaling: Scaling) -> torch.Tensor:
    """`scaled`, padded with zeros: [rows, dim] -> [rows, width]."""
    x, width = x.contiguous(), _tiles_for(x).width(x.shape[1])
    if not scaling.normalize:
        return torch.nn.functional.pad(scaled(x, log_scale, scaling), (0, width - x.shape[1]))
    out = x.new_empty(x.shape[0], width)
    if out.numel():
        with torch.cuda.device_of(x):
            scale_kernel[(x.shape[0],)](
                x, log_scale, out, x.shape[1], width, **_scale_constants(scaling), num_warps=SCALE_WARPS
            )
    return out


def _scale_constants(scaling: Scaling) -> dict[str, float]:
    return SCALE_CONSTANTS | {"max_log_scale": scaling.max_log_scale}


def _scale_backward(
    grad: torch.Tensor,
    grad_unit: torch.Tensor,
    x: torch.Tensor,
    log_scale: torch.Tensor,
    grad_x: torch.Tensor,
    shares: torch.Tensor,
    scaling: Scaling,
) -> None:
    """Fills grad_x [rows, dim], contiguous, and each row's share of log_scale's gradient, shares [rows], from grad
    [rows, width] in units of grad_unit.
    """
    if not scaling.normalize:
        found, of_scale = scaled_backward(grad[:, : x.shape[1]] * grad_unit, x, log_scale, scaling)
        grad_x.copy_(found)
        shares.copy_(of_scale)
        return
    x = x.contiguous()
    with torch.cuda.device_of(x):
        scale_backward_kernel[(x.shape[0],)](
            grad,
            grad_unit,
            x,
            log_scale,
            grad_x,
            shares,
            x.shape[1],
            grad.shape[1],
            **_scale_constants(scaling),
            num_warps=SCALE_WARPS,
        )


def logsumexp_triton(
    x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor, both: bool, scaling: Scaling = STANDARD
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `logsumexp_reference`."""
    return _logsumexps(x, y, log_scale, True, both, scaling, None)


class Stored(NamedTuple):
    """What "dense" stores, in one tensor: the logits of the longer side `a` with the other, less logsumexps of their
    tiles, and these, by row [column tiles, rows of a] and by column [row tiles, rows of b].
    """

    logits: torch.Tensor
    row_parts: torch.Tensor
    column_parts: torch.Tensor

    @classmethod
    def of(cls, memory: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> Stored:
        (n, stride), *shapes = _stored_shapes(x, y)
        logits, parts = memory.split((n * stride, memory.numel() - n * stride))
        by_row, by_column = parts.view(torch.float32).split([tiles * count for tiles, count in shapes])
        return cls(logits.view(n, stride), by_row.view(shapes[0]), by_column.view(shapes[1]))


def _stored_shapes(x: torch.Tensor, y: torch.Tensor) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    n, m, tile = max(x.shape[0], y.shape[0]), min(x.shape[0], y.shape[0]), _tiles_for(x)
    return (n, _rounded_up(m)), (triton.cdiv(m, tile.columns), n), (triton.cdiv(n, tile.rows), m)


def stored_memory(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Memory for `Stored`: float16 for half-precision vectors, else float32."""
    (n, stride), *shapes = _stored_shapes(x, y)
    dtype = torch.float32 if x.dtype == torch.float32 else torch.float16
    parts = sum(tiles * count for tiles, count in shapes)
    return x.new_empty(n * stride + parts * (4 // dtype.itemsize), dtype=dtype)


def logsumexp_triton_dense(
    x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor, both: bool, scaling: Scaling = STANDARD
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `logsumexp_reference`, and the logits that the backward pass takes."""
    memory = stored_memory(x, y)
    stored = Stored.of(memory, x, y)
    if y.shape[0] > x.shape[0]:  # then not both
        none, rows, _ = _logsumexps(y, x, log_scale, False, True, scaling, stored)
        return rows, none, x.new_empty(0, dtype=torch.float32), memory
    return *_logsumexps(x, y, log_scale, True, both, scaling, stored), memory


def _logsumexps(
    a: torch.Tensor,
    b: torch.Tensor,
    log_scale: torch.Tensor,
    by_row: bool,
    by_column: bool,
    scaling: Scaling,
    stored: Stored | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logsumexps of the logits of a and b by row and by column, and with both their diagonal; fills `stored`."""
    n, m, both, dtype = a.shape[0], b.shape[0], by_row and by_column, torch.float32
    if not (n and m):
        rows, columns = (a.new_full((count,), -torch.inf, dtype=dtype) for count in (n * by_row, m * by_column))
        return rows, columns, a.new_empty(0, dtype=dtype)
    wide_a, wide_b = (_scaled(side, log_scale, scaling) for side in (a, b))
    tile = _tiles_for(a)
    row_tiles, column_tiles = triton.cdiv(n, tile.rows), triton.cdiv(m, tile.columns)
    row_parts = a.new_empty((column_tiles, n) if by_row else (0, 0), dtype=dtype)
    column_parts = a.new_empty((row_tiles, m) if by_column else (0, 0), dtype=dtype)
    if stored is not None:
        row_parts = stored.row_parts if by_row else row_parts
        column_parts = stored.column_parts if by_column else column_parts
        if not both:  # what the op returns has no unwritten memory
            (stored.column_parts if by_row else stored.row_parts).zero_()
    diagonal = a.new_empty(n if both else 0, dtype=dtype)
    library = LIBRARY_LOGITS and stored is not None
    options = tile.options(both)
    # Whole tiles, so that each block has its own rows of column_parts.
    block = max(1, LIBRARY_BLOCK_BYTES // (4 * _rounded_up(m) * tile.rows)) * tile.rows if library else n
    given = a.new_empty(min(block, n), _rounded_up(m), dtype=dtype) if library else wide_a
    for start in range(0, n, block):
        end = min(start + block, n)
        if library:
            product(wide_a[start:end], wide_b.T, given[: end - start, :m])
        with torch.cuda.device_of(a):
            logsumexp_kernel[(triton.cdiv(end - start, tile.rows) * column_tiles,)](
                given,
                wide_b,
                given if stored is None else stored.logits[start:],
                row_parts[:, start:],
                column_parts[start // tile.rows :],
                diagonal[start:],
                start,
                end - start,
                m,
                given.shape[1],
                0 if stored is None else stored.logits.shape[1],
                n,
                BY_ROW=by_row,
                BY_COLUMN=by_column,
                GIVEN=library,
                STORE=stored is not None,
                **tile.constants(),
                **options,
            )
    return _merged(row_parts), _merged(column_parts), diagonal


def _rounded_up(elements: int) -> int:
    """Rows that start at multiples of 32 bytes make matrix products and stores fast."""
    return triton.cdiv(elements, 16) * 16


def _merged(parts: torch.Tensor) -> torch.Tensor:
    """Logsumexp over the first dimension of parts [tiles, count]."""
    tiles, count = parts.shape
    out = parts.new_empty(count)
    if count:
        with torch.cuda.device_of(parts):
            grid = (triton.cdiv(count, MERGE_CONSTANTS["BLOCK"]),)
            merge_kernel[grid](parts, out, tiles, count, **MERGE_CONSTANTS, num_warps=MERGE_WARPS)
    return out


def logsumexp_triton_backward(
    grads: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    log_scale: torch.Tensor,
    row_lse: torch.Tensor,
    column_lse: torch.Tensor,
    memory: torch.Tensor | None,
    both: bool,
    scaling: Scaling = STANDARD,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, y and log_scale. Without stored logits it computes them again, once for both directions."""
    stored = None if memory is None else Stored.of(memory, x, y)
    row_grad, column_grad, diagonal_grad = (g.float().contiguous() for g in grads)
    if y.shape[0] > x.shape[0]:  # then not both: the gradient that is summed over blocks is the short one
        none = row_lse.new_empty(0)
        softmaxes = (none, none, row_grad, row_lse, none)
        grad_y, grad_x, grad_log_scale = _weighted_sums(y, x, log_scale, softmaxes, scaling, stored)
        return grad_x, grad_y, grad_log_scale
    softmaxes = (row_grad, row_lse, column_grad, column_lse, diagonal_grad)
    return _weighted_sums(x, y, log_scale, softmaxes, scaling, stored)


def _weighted_sums(
    a: torch.Tensor,
    b: torch.Tensor,
    log_scale: torch.Tensor,
    softmaxes: tuple[torch.Tensor, ...],
    scaling: Scaling,
    stored: Stored | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of a, b and log_scale through the logits of a and b, a block of rows of a at a time.

    `softmaxes`: gradient and value of the logsumexps by row, the same by column, and the gradient of the diagonal;
    empty tensors if there is none.
    """
    row_grad, row_lse, column_grad, column_lse, diagonal_grad = softmaxes
    if not (a.numel() and b.numel()):
        return a.new_zeros(a.shape), b.new_zeros(b.shape), torch.zeros_like(log_scale)
    n, m, wide_b = a.shape[0], b.shape[0], _scaled(b, log_scale, scaling)
    grad_a = torch.empty_like(a, memory_format=torch.contiguous_format)
    shares = log_scale.new_empty(n + m)
    sum_b = torch.empty_like(wide_b, dtype=torch.float32)
    # Gradients of a mean over many pairs underflow float16: scale the largest to LARGEST_WEIGHT.
    largest = torch.linalg.vector_norm(torch.cat((row_grad, column_grad, diagonal_grad)), torch.inf)
    unit = largest.clamp_(min=SMALLEST_GRADIENT).div_(LARGEST_WEIGHT)
    stride = _rounded_up(m)
    # Whole tiles, which also keeps every block's share of the gradients aligned.
    most = WEIGHT_BYTES if stored is None else STORED_WEIGHT_BYTES
    block = min(n, max(1, most // (a.element_size() * stride * 128)) * 128)
    memory = a.new_empty(block, stride)
    for start in range(0, n, block):
        part = slice(start, min(start + block, n))
        rows, weights = _scaled(a[part], log_scale, scaling), memory[: part.stop - part.start, :m]
        by_row = [v[part] if v.numel() else v for v in (row_grad, row_lse)]
        diagonal = diagonal_grad[part] if diagonal_grad.numel() else diagonal_grad
        values = (*by_row, column_grad, column_lse, diagonal, unit)
        _launch_weights(rows, wide_b, values, weights, start, stored)
        _scale_backward(product(weights, wide_b), unit, a[part], log_scale, grad_a[part], shares[part], scaling)
        if start:
            add_product(sum_b, weights.T, rows)
        else:
            product(weights.T, rows, sum_b)
    # Peak memory is here: free the blocks' memory for the last gradient.
    del memory, weights, rows, wide_b
    grad_b = torch.empty_like(b, memory_format=torch.contiguous_format)
    _scale_backward(sum_b, unit, b, log_scale, grad_b, shares[n:], scaling)
    return grad_a, grad_b, shares.sum()


def _launch_weights(
    a: torch.Tensor,
    b: torch.Tensor,
    softmaxes: tuple[torch.Tensor, ...],
    weights: torch.Tensor,
    first: int,
    stored: Stored | None,
) -> None:
    n, m, tile = a.shape[0], b.shape[0], _tiles_for(b)
    by_row, by_column = softmaxes[0].numel() > 0, softmaxes[2].numel() > 0
    # Without stored logits the parts are pointers that are not read.
    logits, row_parts, column_parts = (a, b, b) if stored is None else stored
    if stored is not None:
        logits, row_parts = logits[first:], row_parts[:, first:]
        column_parts = column_parts[first // tile.rows :]
    with torch.cuda.device_of(a):
        weights_kernel[(triton.cdiv(n, tile.rows) * triton.cdiv(m, tile.columns),)](
            logits,
            b,
            *softmaxes,
            weights,
            row_parts,
            column_parts,
            first,
            n,
            m,
            logits.shape[1],
            weights.stride(0),
            row_parts.stride(0),
            BY_ROW=by_row,
            BY_COLUMN=by_column,
            GIVEN=stored is not None,
            **tile.constants(),
            **tile.options(by_row and by_column),
        )
