"""Triton kernels of bias_quick_gelu. x is [rows, features], contiguous; the arithmetic is float32.

A program handles a strip of `length` rows in a block of columns: it reads the bias once, and sums the bias's gradient
in registers.
"""

# Triton's language is not Python to a type checker.
# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _strip(rows, features, length, BLOCK_C: tl.constexpr):
    """Number of this program's strip, its columns, and its first row and the end of its rows.

    Programs that run at the same time have neighbouring columns, so that together they read contiguous memory.
    """
    blocks = tl.cdiv(features, BLOCK_C)
    strip = (tl.program_id(0) // blocks).to(tl.int64)
    columns = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    first = strip * length
    return strip, columns, first, tl.minimum(first + length, rows)


@triton.jit
def _load_bias(bias, columns, features, HAS_BIAS: tl.constexpr, BLOCK_C: tl.constexpr):
    if HAS_BIAS:
        return tl.load(bias + columns, mask=columns < features, other=0.0).to(tl.float32)
    return tl.zeros([BLOCK_C], tl.float32)


@triton.jit(do_not_specialize=["rows", "length"])
def forward_kernel(
    x,
    bias,
    out,
    rows,
    features,
    length,
    steepness: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    _, columns, first, end = _strip(rows, features, length, BLOCK_C)
    b = _load_bias(bias, columns, features, HAS_BIAS, BLOCK_C)
    for start in range(first, end, BLOCK_R):
        row = start + tl.arange(0, BLOCK_R)
        place = row[:, None] * features + columns[None, :]
        inside = (row < end)[:, None] & (columns < features)[None, :]
        z = tl.load(x + place, mask=inside, other=0.0).to(tl.float32) + b[None, :]
        y = z / (1.0 + tl.exp(-steepness * z))
        tl.store(out + place, y.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows", "length"])
def backward_kernel(
    grad,
    x,
    bias,
    grad_x,
    parts,
    rows,
    features,
    length,
    steepness: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """parts [strips, features], float32, gets the sum of each strip's rows of grad_x, before they are rounded."""
    strip, columns, first, end = _strip(rows, features, length, BLOCK_C)
    b = _load_bias(bias, columns, features, HAS_BIAS, BLOCK_C)
    # Elementwise in the loop and along rows once at the end, where lanes and warps may have to exchange values.
    total = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    for start in range(first, end, BLOCK_R):
        row = start + tl.arange(0, BLOCK_R)
        place = row[:, None] * features + columns[None, :]
        inside = (row < end)[:, None] & (columns < features)[None, :]
        # Outside, a gradient of 0 adds nothing to the sum.
        g = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32)
        z = tl.load(x + place, mask=inside, other=0.0).to(tl.float32) + b[None, :]
        s = 1.0 / (1.0 + tl.exp(-steepness * z))
        # s * (1 - s) first: steepness * z may overflow where it is 0.
        g *= s + s * (1.0 - s) * z * steepness
        tl.store(grad_x + place, g.to(grad_x.dtype.element_ty), mask=inside)
        if HAS_BIAS:
            total += g
    if HAS_BIAS:
        tl.store(parts + strip * features + columns, tl.sum(total, 0), mask=columns < features)
