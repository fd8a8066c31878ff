"""Attention kernels for long sequences: a program owns a block of queries or keys and loops over the others.

`placed` [tokens, PARTS, heads, D] holds queries and keys to which place_kernel has applied the position, or is qkv.
The gradients of queries and keys go back through the position when they are stored. Statistics of rows, `lse` and
`delta`, are [heads, tokens], so that those of a block are contiguous.

Heads have D numbers, tiles are W wide, the next power of two: at D = 96 the products do a third more than they must,
and the last quarter of each tile is zeros that are neither read nor written. R angles rotate the first 2 R numbers.

One program sums each gradient in a fixed order: no atomics, and a deterministic result. The price is computing the
scores twice, for the queries' gradient and for those of keys and values: 7 products instead of 5.
"""

from __future__ import annotations

import triton
import triton.language as tl

from reserve_kernels.attention.triton_blocks import (
    UNALIGNED,
    UNSPECIALIZED,
    apply_position,
    load_rows,
    store_rows,
    work_item,
)

LN_2 = tl.constexpr(0.6931471805599453)
LOG2_E = tl.constexpr(1.4426950408889634)
# No score is below it, yet it is finite: the difference of two of them is 0 and not NaN.
LOWEST = tl.constexpr(-3.4028234663852886e38)


@triton.jit
def _forward_step(
    acc, top, total, q, q_ids, k, v, ids, first, length, k_stride, v_stride, scale_log2,
    BN: tl.constexpr, SEGMENTS: tl.constexpr, MASKED: tl.constexpr, D: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """One block of keys: updates the weighted sum of values, the maximum of the scores and the sum of weights."""
    rows = first + tl.arange(0, BN)
    valid = rows < length
    keys = load_rows(k, rows, valid, k_stride, MASKED, D, W)
    s = tl.dot(q, tl.trans(keys), input_precision="ieee")
    if MASKED:
        s = tl.where(valid[None, :], s, float("-inf"))
    if SEGMENTS:
        s = tl.where(q_ids[:, None] == tl.load(ids + rows, mask=valid, other=0)[None, :], s, float("-inf"))
    new_top = tl.maximum(top, tl.max(s, 1) * scale_log2)
    p = tl.exp2(s * scale_log2 - new_top[:, None])
    shrink = tl.exp2(top - new_top)
    total = total * shrink + tl.sum(p, 1)
    values = load_rows(v, rows, valid, v_stride, MASKED, D, W)
    acc = tl.dot(p.to(values.dtype), values, acc * shrink[:, None], input_precision="ieee")
    return acc, new_top, total


@triton.jit(do_not_specialize=UNSPECIALIZED, do_not_specialize_on_alignment=UNALIGNED)
def forward_kernel(
    placed, qkv, cu_seqlens, segment_ids, out, lse, scale_log2, heads, tokens, blocks,
    BM: tl.constexpr, BN: tl.constexpr, PARTS: tl.constexpr, SEGMENTS: tl.constexpr, D: tl.constexpr,
    W: tl.constexpr,
):  # fmt: skip
    """out [tokens, heads, D] and lse [heads, tokens] of one block of BM queries of one sequence and head."""
    block, head, start, length = work_item(cu_seqlens, heads, blocks)
    if block * BM < length:
        stride, placed_stride = heads * (3 * D), heads * (D * PARTS)
        queries = placed + start * placed_stride + head * D
        k, v = queries + heads * D, qkv + start * stride + (2 * heads + head) * D
        ids = segment_ids + start
        rows = block * BM + tl.arange(0, BM)
        valid = rows < length
        q = load_rows(queries, rows, valid, placed_stride, True, D, W)
        q_ids = tl.load(ids + rows, mask=valid, other=0) if SEGMENTS else rows
        acc = tl.zeros((BM, W), tl.float32)
        top = tl.full((BM,), LOWEST, tl.float32)
        total = tl.zeros((BM,), tl.float32)
        whole = length // BN * BN
        for first in range(0, whole, BN):
            acc, top, total = _forward_step(
                acc, top, total, q, q_ids, k, v, ids, first, length, placed_stride, stride, scale_log2,
                BN, SEGMENTS, False, D, W,
            )  # fmt: skip
        if whole < length:
            acc, top, total = _forward_step(
                acc, top, total, q, q_ids, k, v, ids, whole, length, placed_stride, stride, scale_log2,
                BN, SEGMENTS, True, D, W,
            )  # fmt: skip
        store_rows(out + (start * heads + head) * D, rows, valid, heads * D, acc / total[:, None], D, W)
        tl.store(lse + head.to(tl.int64) * tokens + start + rows, (top + tl.log2(total)) * LN_2, mask=valid)


@triton.jit
def _dq_step(
    dq, q, grad, lse_log2, delta, q_ids, k, v, ids, first, length, k_stride, v_stride, scale_log2,
    BN: tl.constexpr, SEGMENTS: tl.constexpr, MASKED: tl.constexpr, D: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    rows = first + tl.arange(0, BN)
    valid = rows < length
    keys = load_rows(k, rows, valid, k_stride, MASKED, D, W)
    values = load_rows(v, rows, valid, v_stride, MASKED, D, W)
    p = tl.exp2(tl.dot(q, tl.trans(keys), input_precision="ieee") * scale_log2 - lse_log2[:, None])
    if MASKED:
        p = tl.where(valid[None, :], p, 0.0)
    if SEGMENTS:
        p = tl.where(q_ids[:, None] == tl.load(ids + rows, mask=valid, other=0)[None, :], p, 0.0)
    dp = tl.dot(grad, tl.trans(values), input_precision="ieee")
    ds = (p * (dp - delta[:, None])).to(values.dtype)
    return tl.dot(ds, keys, dq, input_precision="ieee")


@triton.jit(do_not_specialize=UNSPECIALIZED, do_not_specialize_on_alignment=UNALIGNED)
def dq_kernel(
    grad, placed, qkv, out, lse, table, cu_seqlens, segment_ids, grad_qkv, delta, scale_log2, scale, heads, tokens,
    blocks, BM: tl.constexpr, BN: tl.constexpr, PARTS: tl.constexpr, ROTARY: tl.constexpr, SEGMENTS: tl.constexpr,
    R: tl.constexpr, D: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """The queries' gradient, and delta [heads, tokens] = sum over dimensions of grad * out, which dkv_kernel reads."""
    block, head, start, length = work_item(cu_seqlens, heads, blocks)
    if block * BM < length:
        stride, placed_stride = heads * (3 * D), heads * (D * PARTS)
        queries = placed + start * placed_stride + head * D
        k, v = queries + heads * D, qkv + start * stride + (2 * heads + head) * D
        ids = segment_ids + start
        rows = block * BM + tl.arange(0, BM)
        valid = rows < length
        q = load_rows(queries, rows, valid, placed_stride, True, D, W)
        q_ids = tl.load(ids + rows, mask=valid, other=0) if SEGMENTS else rows
        of_head = (start * heads + head) * D
        g = load_rows(grad + of_head, rows, valid, heads * D, True, D, W)
        o = load_rows(out + of_head, rows, valid, heads * D, True, D, W)
        d = tl.sum(g.to(tl.float32) * o.to(tl.float32), 1)
        statistics = head.to(tl.int64) * tokens + start + rows
        tl.store(delta + statistics, d, mask=valid)
        lse_log2 = tl.load(lse + statistics, mask=valid, other=float("inf")) * LOG2_E
        dq = tl.zeros((BM, W), tl.float32)
        whole = length // BN * BN
        for first in range(0, whole, BN):
            dq = _dq_step(
                dq, q, g, lse_log2, d, q_ids, k, v, ids, first, length, placed_stride, stride, scale_log2,
                BN, SEGMENTS, False, D, W,
            )  # fmt: skip
        if whole < length:
            dq = _dq_step(
                dq, q, g, lse_log2, d, q_ids, k, v, ids, whole, length, placed_stride, stride, scale_log2,
                BN, SEGMENTS, True, D, W,
            )  # fmt: skip
        dq = apply_position(dq * scale, table + start * (2 * R), rows, valid, ROTARY, True, R, W)
        store_rows(grad_qkv + start * stride + head * D, rows, valid, stride, dq, D, W)


@triton.jit
def _dkv_step(
    dk, dv, keys, values, k_ids, q, grad, lse, delta, ids, first, length, stride, heads, scale_log2,
    BM: tl.constexpr, SEGMENTS: tl.constexpr, D: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    rows = first + tl.arange(0, BM)
    valid = rows < length
    queries = load_rows(q, rows, valid, stride, True, D, W)
    # Queries that are not there weigh nothing: their statistics are infinite. So no block needs a mask of scores.
    lse_log2 = tl.load(lse + rows, mask=valid, other=float("inf")) * LOG2_E
    p = tl.exp2(tl.dot(keys, tl.trans(queries), input_precision="ieee") * scale_log2 - lse_log2[None, :])
    if SEGMENTS:
        p = tl.where(k_ids[:, None] == tl.load(ids + rows, mask=valid, other=0)[None, :], p, 0.0)
    g = load_rows(grad, rows, valid, heads * D, True, D, W)
    dv = tl.dot(p.to(g.dtype), g, dv, input_precision="ieee")
    dp = tl.dot(values, tl.trans(g), input_precision="ieee")
    d = tl.load(delta + rows, mask=valid, other=0.0)
    ds = (p * (dp - d[None, :])).to(g.dtype)
    return tl.dot(ds, queries, dk, input_precision="ieee"), dv


@triton.jit(do_not_specialize=UNSPECIALIZED, do_not_specialize_on_alignment=UNALIGNED)
def dkv_kernel(
    grad, placed, qkv, lse, delta, table, cu_seqlens, segment_ids, grad_qkv, scale_log2, scale, heads, tokens, blocks,
    BM: tl.constexpr, BN: tl.constexpr, PARTS: tl.constexpr, ROTARY: tl.constexpr, SEGMENTS: tl.constexpr,
    R: tl.constexpr, D: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """The gradients of one block of BN keys and values of one sequence and head, over blocks of BM queries."""
    block, head, start, length = work_item(cu_seqlens, heads, blocks)
    if block * BN < length:
        stride, placed_stride = heads * (3 * D), heads * (D * PARTS)
        q = placed + start * placed_stride + head * D
        ids = segment_ids + start
        rows = block * BN + tl.arange(0, BN)
        valid = rows < length
        keys = load_rows(q + heads * D, rows, valid, placed_stride, True, D, W)
        values = load_rows(qkv + start * stride + (2 * heads + head) * D, rows, valid, stride, True, D, W)
        k_ids = tl.load(ids + rows, mask=valid, other=0) if SEGMENTS else rows
        grad += (start * heads + head) * D
        lse += head.to(tl.int64) * tokens + start
        delta += head.to(tl.int64) * tokens + start
        dk = tl.zeros((BN, W), tl.float32)
        dv = tl.zeros((BN, W), tl.float32)
        for first in range(0, length, BM):
            dk, dv = _dkv_step(
                dk, dv, keys, values, k_ids, q, grad, lse, delta, ids, first, length, placed_stride, heads, scale_log2,
                BM, SEGMENTS, D, W,
            )  # fmt: skip
        to = grad_qkv + start * stride + (heads + head) * D
        dk = apply_position(dk * scale, table + start * (2 * R), rows, valid, ROTARY, True, R, W)
        store_rows(to, rows, valid, stride, dk, D, W)
        store_rows(to + heads * D, rows, valid, stride, dv, D, W)
