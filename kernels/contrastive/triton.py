"""Launches the Triton kernels of contrastive_loss; the gradients' products are the library's matrix products.

Each tile of logits is one matrix product whose logsumexp by row and by column is stored instead of it. The gradient of
the logits exists for WEIGHT_BYTES of them at a time, in the operands' dtype, small enough to stay in the L2 cache of
an H100 until both products have read it. Every sum has one order: two runs give the same bits.
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

SCALE_CONSTANTS = {
    "epsilon": EPSILON,
    "limit": squares_limit(torch.float32),
    "max_log_scale": MAX_LOG_SCALE,
    "BLOCK": 1024,
}
SCALE_WARPS = 4


@dataclass(frozen=True)
class Tiles:
    """Block sizes along rows, columns and the dimension, and how the compiler spreads a block."""

    rows: int
    columns: int
    dim: int
    num_warps: int
    num_stages: int

    def constants(self, dim: int) -> dict[str, int | bool]:
        """The kernels' compile-time arguments for vectors of length `dim`."""
        return {
            "BLOCK_N": self.rows,
            "BLOCK_M": self.columns,
            "BLOCK_D": self.dim,
            "EVEN": dim % self.dim == 0,
            "GROUP": 8,
        }


def tiles(dtype: torch.dtype, architecture: int) -> Tiles:
    """What to run for operands of `dtype` on an architecture (80 for compute capability 8.0 …)."""
    if dtype == torch.float32:
        return Tiles(64, 64, 32, num_warps=4, num_stages=2)
    if architecture < 90:
        return Tiles(128, 128, 32, num_warps=8, num_stages=3)
    return Tiles(128, 128, 64, num_warps=8, num_stages=4)


def _tiles_for(x: torch.Tensor) -> Tiles:
    # The interpreter takes its time by the tile, whatever its size.
    if x.device.type != "cuda":
        return Tiles(64, 64, 64, num_warps=4, num_stages=1)
    major, minor = torch.cuda.get_device_capability(x.device)
    return tiles(x.dtype, 10 * major + minor)


def scaled_triton(x: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """As `scaled`: [rows, dim] -> [rows, dim], contiguous."""
    x = x.contiguous()
    out = torch.empty_like(x)
    if x.numel():
        with torch.cuda.device_of(x):
            scale_kernel[(x.shape[0],)](x, log_scale, out, x.shape[1], **SCALE_CONSTANTS, num_warps=SCALE_WARPS)
    return out


def scaled_triton_backward(
    grad: torch.Tensor, x: torch.Tensor, log_scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `scaled_backward`."""
    grad, x = grad.contiguous(), x.contiguous()
    grad_x, shares = torch.empty_like(x), log_scale.new_zeros(x.shape[0])
    if x.numel():
        with torch.cuda.device_of(x):
            scale_backward_kernel[(x.shape[0],)](
                grad, x, log_scale, grad_x, shares, x.shape[1], **SCALE_CONSTANTS, num_warps=SCALE_WARPS
            )
    return grad_x, shares


def logsumexp_triton(x: torch.Tensor, y: torch.Tensor, both: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `logsumexp_reference`."""
    x, y = x.contiguous(), y.contiguous()
    (n, dim), m, tile = x.shape, y.shape[0], _tiles_for(x)
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
                dim,
                BOTH=both,
                **tile.constants(dim),
                num_warps=tile.num_warps,
                num_stages=tile.num_stages,
            )
    return torch.logsumexp(row_parts, 0), torch.logsumexp(column_parts, 0), diagonal


def logsumexp_triton_backward(
    grads: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    row_lse: torch.Tensor,
    column_lse: torch.Tensor,
    both: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of x and y; the logits are computed once more and serve both directions."""
    x, y = x.contiguous(), y.contiguous()
    row_grad, column_grad, diagonal_grad = (g.float().contiguous() for g in grads)
    if not both and y.shape[0] > x.shape[0]:  # the gradient that is summed over blocks is the short one
        none = row_lse.new_empty(0)
        grad_y, grad_x = _weighted_sums(y, x, (none, none, row_grad, row_lse, none))
        return grad_x, grad_y
    return _weighted_sums(x, y, (row_grad, row_lse, column_grad, column_lse, diagonal_grad))


def _weighted_sums(
    a: torch.Tensor, b: torch.Tensor, softmaxes: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of a and b through the logits a @ b.T, a block of rows at a time.

    `softmaxes`: gradient and value of the logsumexps by row, the same by column, gradient of the diagonal; empty
    where there is none.
    """
    row_grad, row_lse, column_grad, column_lse, diagonal_grad = softmaxes
    n, m = a.shape[0], b.shape[0]
    grad_a, sum_b = torch.empty_like(a), torch.zeros_like(b, dtype=torch.float32)
    if not (n and m):
        return grad_a.zero_(), sum_b.to(b.dtype)
    # Half precision has no room for gradients of a mean over many pairs: the largest becomes 1.
    largest = torch.cat((row_grad, column_grad, diagonal_grad)).abs().amax()
    shrink = torch.where(largest == 0, 1.0, largest)
    # Rows of weights start at multiples of 16 bytes, as fast matrix products ask.
    stride = triton.cdiv(m, 8) * 8
    # Whole tiles, which also keeps every block's share of the gradients aligned.
    block = min(n, max(1, WEIGHT_BYTES // (a.element_size() * stride * 128)) * 128)
    memory = a.new_empty(block, stride)
    for start in range(0, n, block):
        part = slice(start, min(start + block, n))
        weights = memory[: part.stop - part.start, :m]
        by_row = [v[part] if v.numel() else v for v in (row_grad, row_lse)]
        diagonal = diagonal_grad[part] if diagonal_grad.numel() else diagonal_grad
        _launch_weights(a[part], b, (*by_row, column_grad, column_lse, diagonal, shrink.reciprocal()), weights, start)
        grad_a[part] = _product(weights, b).mul_(shrink)
        _add_product(sum_b, weights.T, a[part])
    return grad_a, sum_b.mul_(shrink).to(b.dtype)


def _launch_weights(
    a: torch.Tensor, b: torch.Tensor, softmaxes: tuple[torch.Tensor, ...], weights: torch.Tensor, first: int
) -> None:
    (n, dim), m, tile = a.shape, b.shape[0], _tiles_for(a)
    with torch.cuda.device_of(a):
        weights_kernel[(triton.cdiv(n, tile.rows) * triton.cdiv(m, tile.columns),)](
            a,
            b,
            *softmaxes,
            weights,
            first,
            n,
            m,
            dim,
            weights.stride(0),
            BY_ROW=softmaxes[0].numel() > 0,
            BY_COLUMN=softmaxes[2].numel() > 0,
            **tile.constants(dim),
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
