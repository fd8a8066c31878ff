"""Launches the Triton kernels of contrastive_loss; PyTorch's matrix products compute the gradients' products.

A program computes a tile of logits and stores only its logsumexp by row and by column. The gradient of the logits is
materialised WEIGHT_BYTES at a time, in the operands' dtype, small enough to stay in the L2 cache of an H100 until both
products have read it. Every sum has a fixed order, so that the op is deterministic.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton

from reserve_kernels.contrastive.reference import EPSILON, MAX_LOG_SCALE, squares_limit
from reserve_kernels.contrastive.triton_kernels import (
    logsumexp_kernel,
    scale_backward_kernel,
    scale_kernel,
    weights_kernel,
)

WEIGHT_BYTES = 32 << 20
"""Memory for gradients of logits."""

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


def _scaled(x: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """`scaled`, padded with zeros: [rows, dim] -> [rows, width]."""
    x, width = x.contiguous(), _tiles_for(x).width(x.shape[1])
    out = x.new_empty(x.shape[0], width)
    if out.numel():
        with torch.cuda.device_of(x):
            scale_kernel[(x.shape[0],)](x, log_scale, out, x.shape[1], width, **SCALE_CONSTANTS, num_warps=SCALE_WARPS)
    return out


def _scale_backward(
    grad: torch.Tensor,
    grad_unit: torch.Tensor,
    x: torch.Tensor,
    log_scale: torch.Tensor,
    grad_x: torch.Tensor,
    shares: torch.Tensor,
) -> None:
    """Fills grad_x [rows, dim], contiguous, and each row's share of log_scale's gradient, shares [rows], from grad
    [rows, width] in units of grad_unit.
    """
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
            **SCALE_CONSTANTS,
            num_warps=SCALE_WARPS,
        )


def logsumexp_triton(
    x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor, both: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `logsumexp_reference`."""
    x, y, tile = _scaled(x, log_scale), _scaled(y, log_scale), _tiles_for(x)
    (n, width), m = x.shape, y.shape[0]
    row_tiles, column_tiles = triton.cdiv(n, tile.rows), triton.cdiv(m, tile.columns)
    row_parts = x.new_empty(column_tiles, n, dtype=torch.float32)
    column_parts = x.new_empty((row_tiles, m) if both else (0, 0), dtype=torch.float32)
    diagonal = x.new_empty(n if both else 0, dtype=torch.float32)
    if n and m:
        with torch.cuda.device_of(x):
            logsumexp_kernel[(row_tiles * column_tiles,)](
                x,
                y,
                row_parts,
                column_parts,
                diagonal,
                n,
                m,
                width,
                BOTH=both,
                **tile.constants(),
                num_warps=tile.num_warps,
                num_stages=tile.num_stages,
            )
    return torch.logsumexp(row_parts, 0), torch.logsumexp(column_parts, 0), diagonal


def logsumexp_triton_backward(
    grads: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    log_scale: torch.Tensor,
    row_lse: torch.Tensor,
    column_lse: torch.Tensor,
    both: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, y and log_scale. It computes the logits again, once for both directions."""
    row_grad, column_grad, diagonal_grad = (g.float().contiguous() for g in grads)
    if y.shape[0] > x.shape[0]:  # then not both: the gradient that is summed over blocks is the short one
        none = row_lse.new_empty(0)
        grad_y, grad_x, grad_log_scale = _weighted_sums(y, x, log_scale, (none, none, row_grad, row_lse, none))
        return grad_x, grad_y, grad_log_scale
    return _weighted_sums(x, y, log_scale, (row_grad, row_lse, column_grad, column_lse, diagonal_grad))


def _weighted_sums(
    a: torch.Tensor, b: torch.Tensor, log_scale: torch.Tensor, softmaxes: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of a, b and log_scale through the logits of a and b, a block of rows of a at a time.

    `softmaxes`: gradient and value of the logsumexps by row, the same by column, and the gradient of the diagonal;
    empty tensors if there is none.
    """
    row_grad, row_lse, column_grad, column_lse, diagonal_grad = softmaxes
    if not (a.numel() and b.numel()):
        return a.new_zeros(a.shape), b.new_zeros(b.shape), torch.zeros_like(log_scale)
    n, m, wide_b = a.shape[0], b.shape[0], _scaled(b, log_scale)
    grad_a = torch.empty_like(a, memory_format=torch.contiguous_format)
    shares_a, shares_b = log_scale.new_empty(n), log_scale.new_empty(m)
    sum_b = torch.zeros_like(wide_b, dtype=torch.float32)
    # Gradients of a mean over many pairs underflow float16: scale the largest to LARGEST_WEIGHT.
    largest = torch.cat((row_grad, column_grad, diagonal_grad)).abs().amax()
    unit = largest.clamp(min=SMALLEST_GRADIENT) / LARGEST_WEIGHT
    # Rows of weights start at multiples of 32 bytes, for fast matrix products and stores.
    stride = triton.cdiv(m, 16) * 16
    # Whole tiles, which also keeps every block's share of the gradients aligned.
    block = min(n, max(1, WEIGHT_BYTES // (a.element_size() * stride * 128)) * 128)
    memory = a.new_empty(block, stride)
    for start in range(0, n, block):
        part = slice(start, min(start + block, n))
        rows, weights = _scaled(a[part], log_scale), memory[: part.stop - part.start, :m]
        by_row = [v[part] if v.numel() else v for v in (row_grad, row_lse)]
        diagonal = diagonal_grad[part] if diagonal_grad.numel() else diagonal_grad
        _launch_weights(rows, wide_b, (*by_row, column_grad, column_lse, diagonal, unit), weights, start)
        _scale_backward(_product(weights, wide_b), unit, a[part], log_scale, grad_a[part], shares_a[part])
        _add_product(sum_b, weights.T, rows)
    # Peak memory is here: free the blocks' memory for the last gradient.
    del memory, weights, rows, wide_b
    grad_b = torch.empty_like(b, memory_format=torch.contiguous_format)
    _scale_backward(sum_b, unit, b, log_scale, grad_b, shares_b)
    return grad_a, grad_b, shares_a.sum() + shares_b.sum()


def _launch_weights(
    a: torch.Tensor, b: torch.Tensor, softmaxes: tuple[torch.Tensor, ...], weights: torch.Tensor, first: int
) -> None:
    (n, width), m, tile = a.shape, b.shape[0], _tiles_for(a)
    with torch.cuda.device_of(a):
        weights_kernel[(triton.cdiv(n, tile.rows) * triton.cdiv(m, tile.columns),)](
            a,
            b,
            *softmaxes,
            weights,
            first,
            n,
            m,
            width,
            weights.stride(0),
            BY_ROW=softmaxes[0].numel() > 0,
            BY_COLUMN=softmaxes[2].numel() > 0,
            **tile.constants(),
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
        )


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a @ b in float32."""
    if a.dtype == torch.float32 or a.device.type != "cuda":
        return a.float() @ b.float()
    return torch.mm(a, b, out_dtype=torch.float32)


def _add_product(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """total += a @ b, in float32."""
    if a.dtype == torch.float32 or a.device.type != "cuda":
        total.addmm_(a.float(), b.float())
    else:
        torch.addmm(total, a, b, out_dtype=torch.float32, out=total)
