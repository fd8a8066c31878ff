"""Attention kernels for long sequences: a program owns a block of queries or keys and loops over the others.

`placed` [tokens, PARTS, heads, 64] holds queries and keys to which place_kernel has applied the position, or is qkv.
The gradients of queries and keys go back through the position when they are stored. Statistics of rows, `lse` and
`delta`, are [heads, tokens], so that those of a block are contiguous.

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
    BN: tl.constexpr, SEGMENTS: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """One block of keys: updates the weighted sum of values, the maximum of the scores and the sum of weights."""
    rows = first + tl.arange(0, BN)
    valid = rows < length
    keys = load_rows(k, rows, valid, k_stride, MASKED)
    s = tl.dot(q, tl.trans(keys), input_precision="ieee")
    if MASKED:
        s = tl.where(valid[None, :], s, float("-inf"))
    if SEGMENTS:
        s = tl.where(q_ids[:, None] == tl.load(ids + rows, mask=valid, other=0)[None, :], s, float("-inf"))
    new_top = tl.maximum(top, tl.max(s, 1) * scale_log2)
    p = tl.exp2(s * scale_log2 - new_top[:, None])
    shrink = tl.exp2(top - new_top)
    total = total * shrink + tl.sum(p, 1)
    values = load_rows(v, rows, valid, v_stride, MASKED)
    acc = tl.dot(p.to(values.dtype), values, acc * shrink[:, None], input_precision="ieee")
    return acc, new_top, total


@triton.jit(do_not_specialize=UNSPECIALIZED, do_not_specialize_on_alignment=UNALIGNED)
def forward_kernel(
    placed, qkv, cu_seqlens, segment_ids, out, lse, scale_log2, heads, tokens, blocks,
    BM: tl.constexpr, BN: tl.constexpr, PARTS: tl.constexpr, SEGMENTS: tl.constexpr,
):  # fmt: skip
    """out [tokens, heads, 64] and lse [heads, tokens] of one block of BM queries of one sequence and head."""
    block, head, start, length = work_item(cu_seqlens, heads, blocks)
    if block * BM < length:
        stride, placed_stride = heads * 192, heads * (64 * PARTS)
        queries = placed + start * placed_stride + head * 64
        k, v = queries + heads * 64, qkv + start * stride + (2 * heads + head) * 64
        ids = segment_ids + start
        rows = block * BM + tl.arange(0, BM)
        valid = rows < length
        q = load_rows(queries, rows, valid, placed_stride, True)
        q_ids = tl.load(ids + rows, mask=valid, other=0) if SEGMENTS else rows
        acc = tl.zeros((BM, 64), tl.float32)
        top = tl.full((BM,), LOWEST, tl.float32)
        total = tl.zeros((BM,), tl.float32)
        whole = length // BN * BN
        for first in range(0, whole, BN):
            acc, top, total = _forward_step(
                acc, top, total, q, q_ids, k, v, ids, first, length, placed_stride, stride, scale_log2,
                BN, SEGMENTS, False,
            )  # fmt: skip
        if whole < length:
            acc, top, total = _forward_step(
                acc, top, total, q, q_ids, k, v, ids, whole, length, placed_stride, stride, scale_log2,
                BN, SEGMENTS, True,
            )  # fmt: skip
        store_rows(out + (start * heads + head) * 64, rows, valid, heads * 64, acc / total[:, None])
        tl.store(lse + head.to(tl.int64) * tokens + start + rows, (top + tl.log2(total)) * LN_2, mask=valid)


@triton.jit
def _dq_step(
    dq, q, grad, lse_log2, delta, q_ids, k, v, ids, first, length, k_stride, v_stride, scale_log2,
    BN: tl.constexpr, SEGMENTS: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    rows = first + tl.arange(0, BN)
    valid = rows < length
    keys = load_rows(k, rows, valid, k_stride, MASKED)
    values = load_rows(v, rows, valid, v_stride, MASKED)
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
):  # fmt: skip
    """The queries' gradient, and delta [heads, tokens] = sum over dimensions of grad * out, which dkv_kernel reads."""
    block, head, start, length = work_item(cu_seqlens, heads, blocks)
    if block * BM < length:
        stride, placed_stride = heads * 192, heads * (64 * PARTS)
        queries = placed + start * placed_stride + head * 64
        k, v = queries + heads * 64, qkv + start * stride + (2 * heads + head) * 64
        ids = segment_ids + start
        rows = block * BM + tl.arange(0, BM)
        valid = rows < length
        q = load_rows(queries, rows, valid, placed_stride, True)
        q_ids = tl.load(ids + rows, mask=valid, other=0) if SEGMENTS else rows
        of_head = (start * heads + head) * 64
        g = load_rows(grad + of_head, rows, valid, heads * 64, True)
        o = load_rows(out + of_head, rows, valid, heads * 64, True)
        d = tl.sum(g.to(tl.float32) * o.to(tl.float32), 1)
        statistics = head.to(tl.int64) * tokens + start + rows
        tl.store(delta + statistics, d, mask=valid)
        lse_log2 = tl.load(lse + statistics, mask=valid, other=float("inf")) * LOG2_E
        dq = tl.zeros((BM, 64), tl.float32)
        whole = length // BN * BN
        for first in range(0, whole, BN):
            dq = _dq_step(
                dq, q, g, lse_log2, d, q_ids, k, v, ids, first, length, placed_stride, stride, scale_log2,
                BN, SEGMENTS, False,
            )  # fmt: skip
        if whole < length:
            dq = _dq_step(
                dq, q, g, lse_log2, d, q_ids, k, v, ids, whole, length, placed_stride, stride, scale_log2,
                BN, SEGMENTS, True,
            )  # fmt: skip
        dq = apply_position(dq * scale, table + start * 32, rows, valid, ROTARY, True)
        store_rows(grad_qkv + start * stride + head * 64, rows, valid, stride, dq)


@triton.jit
def _dkv_step(
    dk, dv, keys, values, k_ids, q, grad, lse, delta, ids, first, length, stride, heads, scale_log2,
    BM: tl.constexpr, SEGMENTS: tl.constexpr,
):  # fmt: skip
    rows = first + tl.arange(0, BM)
    valid = rows < length
    queries = load_rows(q, rows, valid, stride, True)
    # Queries that are not there weigh nothing: their statistics are infinite. So no block needs a mask of scores.
    lse_log2 = tl.load(lse + rows, mask=valid, other=float("inf")) * LOG2_E
    p = tl.exp2(tl.dot(keys, tl.trans(queries), input_precision="ieee") * scale_log2 - lse_log2[None, :])
    if SEGMENTS:
        p = tl.where(k_ids[:, None] == tl.load(ids + rows, mask=valid, other=0)[None, :], p, 0.0)
    g = load_rows(grad, rows, valid, heads * 64, True)
    dv = tl.dot(p.to(g.dtype), g, dv, input_precision="ieee")
    dp = tl.dot(values, tl.trans(g), input_precision="ieee")
    d = tl.load(delta + rows, mask=valid, other=0.0)
    ds = (p * (dp - d[None, :])).to(g.dtype)
    return tl.dot(ds, queries, dk, input_precision="ieee"), dv


@triton.jit(do_not_specialize=UNSPECIALIZED, do_not_specialize_on_alignment=UNALIGNED)
def dkv_kernel(
    grad, placed, qkv, lse, delta, table, cu_seqlens, segment_ids, grad_qkv, scale_log2, scale, heads, tokens, blocks,
    BM: tl.constexpr, BN: tl.constexpr, PARTS: tl.constexpr, ROTARY: tl.constexpr, SEGMENTS: tl.constexpr,
):  # fmt: skip
    """The gradients of one block of BN keys and values of one sequence and head, over blocks of BM queries."""
    block, head, start, length = work_item(cu_seqlens, heads, blocks)
    if block * BN < length:
        stride, placed_stride = heads * 192, heads * (64 * PARTS)
        q = placed + start * placed_stride + head * 64
        ids = segment_ids + start
        rows = block * BN + tl.arange(0, BN)
        valid = rows < length
        keys = load_rows(q + heads * 64, rows, valid, placed_stride, True)
        values = load_rows(qkv + start * stride + (2 * heads + head) * 64, rows, valid, stride, True)
        k_ids = tl.load(ids + rows, mask=valid, other=0) if SEGMENTS else rows
        grad += (start * heads + head) * 64
        lse += head.to(tl.int64) * tokens + start
        delta += head.to(tl.int64) * tokens + start
        dk = tl.zeros((BN, 64), tl.float32)
        dv = tl.zeros((BN, 64), tl.float32)
        for first in range(0, length, BM):
            dk, dv = _dkv_step(
                dk, dv, keys, values, k_ids, q, grad, lse, delta, ids, first, length, placed_stride, heads, scale_log2,
                BM, SEGMENTS,
            )  # fmt: skip
        to = grad_qkv + start * stride + (heads + head) * 64
        store_rows(to, rows, valid, stride, apply_position(dk * scale, table + start * 32, rows, valid, ROTARY, True))
        store_rows(to + heads * 64, rows, valid, stride, dv)
