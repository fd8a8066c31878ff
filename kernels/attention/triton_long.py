"""Attention kernels for long sequences: a program owns a block of queries or keys and loops over the others.

One program sums each gradient in a fixed order: no atomics, and a deterministic result. The price is computing the
scores twice, for the queries' gradient and for those of keys and values: 7 products instead of 5.

LOOP is the ROTARY of what the loop reads: ROTARY itself, or TURNED if turn_kernel has applied the position and written
`turned` [tokens, heads, 32], the rotated halves of all keys (forward, dq) or of all queries (dkv).
"""

from __future__ import annotations

import triton
import triton.language as tl

from reserve_kernels.attention.triton_blocks import (
    TURNED,
    UNALIGNED,
    UNSPECIALIZED,
    load_rotated,
    load_rows,
    scores,
    store_gradient,
    store_rows,
    work_item,
)

LN_2 = tl.constexpr(0.6931471805599453)
LOG2_E = tl.constexpr(1.4426950408889634)
# No score is below it, yet it is finite: the difference of two of them is 0 and not NaN.
LOWEST = tl.constexpr(-3.4028234663852886e38)


@triton.jit
def _forward_step(
    acc, top, total, q_rotated, q_other, q_ids, k, v, table, ids, first, length, heads, scale_log2,
    BN: tl.constexpr, ROTARY: tl.constexpr, SEGMENTS: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """One block of keys: updates the weighted sum of values, the maximum of the scores and the sum of weights."""
    rows = first + tl.arange(0, BN)
    valid = rows < length
    k_rotated, k_other = load_rotated(k, table, rows, valid, heads, ROTARY, MASKED)
    s = scores(q_rotated, q_other, k_rotated, k_other)
    if MASKED:
        s = tl.where(valid[None, :], s, float("-inf"))
    if SEGMENTS:
        s = tl.where(q_ids[:, None] == tl.load(ids + rows, mask=valid, other=0)[None, :], s, float("-inf"))
    new_top = tl.maximum(top, tl.max(s, 1) * scale_log2)
    p = tl.exp2(s * scale_log2 - new_top[:, None])
    shrink = tl.exp2(top - new_top)
    total = total * shrink + tl.sum(p, 1)
    values = load_rows(v, rows, valid, heads * 192, MASKED)
    acc = tl.dot(p.to(values.dtype), values, acc * shrink[:, None], input_precision="ieee")
    return acc, new_top, total


@triton.jit(do_not_specialize=UNSPECIALIZED, do_not_specialize_on_alignment=UNALIGNED)
def forward_kernel(
    qkv, table, turned, cu_seqlens, segment_ids, out, lse, scale_log2, heads, blocks,
    BM: tl.constexpr, BN: tl.constexpr, ROTARY: tl.constexpr, LOOP: tl.constexpr, SEGMENTS: tl.constexpr,
):  # fmt: skip
    """out [tokens, heads, 64] and lse [tokens, heads] of one block of BM queries of one sequence and head."""
    block, head, start, length = work_item(cu_seqlens, heads, blocks)
    if block * BM < length:
        stride = heads * 192
        q = qkv + start * stride + head * 64
        k, v = q + heads * 64, q + heads * 128
        table += start * 32
        of_keys = turned + (start * heads + head) * 32 if LOOP == TURNED else table
        ids = segment_ids + start
        rows = block * BM + tl.arange(0, BM)
        valid = rows < length
        q_rotated, q_other = load_rotated(q, table, rows, valid, heads, ROTARY, True)
        q_ids = tl.load(ids + rows, mask=valid, other=0) if SEGMENTS else rows
        acc = tl.zeros((BM, 64), tl.float32)
        top = tl.full((BM,), LOWEST, tl.float32)
        total = tl.zeros((BM,), tl.float32)
        whole = length // BN * BN
        for first in range(0, whole, BN):
            acc, top, total = _forward_step(
                acc, top, total, q_rotated, q_other, q_ids, k, v, of_keys, ids, first, length, heads, scale_log2,
                BN, LOOP, SEGMENTS, False,
            )  # fmt: skip
        if whole < length:
            acc, top, total = _forward_step(
                acc, top, total, q_rotated, q_other, q_ids, k, v, of_keys, ids, whole, length, heads, scale_log2,
                BN, LOOP, SEGMENTS, True,
            )  # fmt: skip
        store_rows(out + (start * heads + head) * 64, rows, valid, heads * 64, acc / total[:, None])
        tl.store(lse + start * heads + head + rows * heads, (top + tl.log2(total)) * LN_2, mask=valid)


@triton.jit
def _dq_step(
    dq_rotated, dq_other, q_rotated, q_other, grad, lse_log2, delta, q_ids, k, v, table, ids, first, length, heads,
    scale_log2, BN: tl.constexpr, ROTARY: tl.constexpr, SEGMENTS: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    rows = first + tl.arange(0, BN)
    valid = rows < length
    k_rotated, k_other = load_rotated(k, table, rows, valid, heads, ROTARY, MASKED)
    values = load_rows(v, rows, valid, heads * 192, MASKED)
    p = tl.exp2(scores(q_rotated, q_other, k_rotated, k_other) * scale_log2 - lse_log2[:, None])
    if MASKED:
        p = tl.where(valid[None, :], p, 0.0)
    if SEGMENTS:
        p = tl.where(q_ids[:, None] == tl.load(ids + rows, mask=valid, other=0)[None, :], p, 0.0)
    dp = tl.dot(grad, tl.trans(values), input_precision="ieee")
    ds = (p * (dp - delta[:, None])).to(values.dtype)
    dq_rotated = tl.dot(ds, k_rotated, dq_rotated, input_precision="ieee")
    dq_other = tl.dot(ds, k_other, dq_other, input_precision="ieee")
    return dq_rotated, dq_other


@triton.jit(do_not_specialize=UNSPECIALIZED, do_not_specialize_on_alignment=UNALIGNED)
def dq_kernel(
    grad, qkv, out, lse, table, turned, cu_seqlens, segment_ids, grad_qkv, delta, scale_log2, scale, heads, blocks,
    BM: tl.constexpr, BN: tl.constexpr, ROTARY: tl.constexpr, LOOP: tl.constexpr, SEGMENTS: tl.constexpr,
):  # fmt: skip
    """The queries' gradient, and delta [tokens, heads] = sum over dimensions of grad * out, which dkv_kernel reads."""
    block, head, start, length = work_item(cu_seqlens, heads, blocks)
    if block * BM < length:
        stride = heads * 192
        q = qkv + start * stride + head * 64
        k, v = q + heads * 64, q + heads * 128
        table += start * 32
        of_keys = turned + (start * heads + head) * 32 if LOOP == TURNED else table
        ids = segment_ids + start
        rows = block * BM + tl.arange(0, BM)
        valid = rows < length
        q_rotated, q_other = load_rotated(q, table, rows, valid, heads, ROTARY, True)
        q_ids = tl.load(ids + rows, mask=valid, other=0) if SEGMENTS else rows
        of_head = (start * heads + head) * 64
        g = load_rows(grad + of_head, rows, valid, heads * 64, True)
        o = load_rows(out + of_head, rows, valid, heads * 64, True)
        d = tl.sum(g.to(tl.float32) * o.to(tl.float32), 1)
        statistics = start * heads + head + rows * heads
        tl.store(delta + statistics, d, mask=valid)
        lse_log2 = tl.load(lse + statistics, mask=valid, other=float("inf")) * LOG2_E
        dq_rotated = tl.zeros((BM, 32), tl.float32)
        dq_other = tl.zeros((BM, 32), tl.float32)
        whole = length // BN * BN
        for first in range(0, whole, BN):
            dq_rotated, dq_other = _dq_step(
                dq_rotated, dq_other, q_rotated, q_other, g, lse_log2, d, q_ids, k, v, of_keys, ids, first, length,
                heads, scale_log2, BN, LOOP, SEGMENTS, False,
            )  # fmt: skip
        if whole < length:
            dq_rotated, dq_other = _dq_step(
                dq_rotated, dq_other, q_rotated, q_other, g, lse_log2, d, q_ids, k, v, of_keys, ids, whole, length,
                heads, scale_log2, BN, LOOP, SEGMENTS, True,
            )  # fmt: skip
        dq = grad_qkv + start * stride + head * 64
        store_gradient(dq, table, rows, valid, stride, dq_rotated * scale, dq_other * scale, ROTARY)


@triton.jit
def _dkv_step(
    dk_rotated, dk_other, dv, k_rotated, k_other, values, k_ids, q, grad, lse, delta, table, ids, first, length, heads,
    scale_log2, BM: tl.constexpr, ROTARY: tl.constexpr, SEGMENTS: tl.constexpr,
):  # fmt: skip
    rows = first + tl.arange(0, BM)
    valid = rows < length
    q_rotated, q_other = load_rotated(q, table, rows, valid, heads, ROTARY, True)
    # Queries that are not there weigh nothing: their statistics are infinite. So no block needs a mask of scores.
    lse_log2 = tl.load(lse + rows * heads, mask=valid, other=float("inf")) * LOG2_E
    p = tl.exp2(scores(k_rotated, k_other, q_rotated, q_other) * scale_log2 - lse_log2[None, :])
    if SEGMENTS:
        p = tl.where(k_ids[:, None] == tl.load(ids + rows, mask=valid, other=0)[None, :], p, 0.0)
    g = load_rows(grad, rows, valid, heads * 64, True)
    dv = tl.dot(p.to(g.dtype), g, dv, input_precision="ieee")
    dp = tl.dot(values, tl.trans(g), input_precision="ieee")
    d = tl.load(delta + rows * heads, mask=valid, other=0.0)
    ds = (p * (dp - d[None, :])).to(g.dtype)
    dk_rotated = tl.dot(ds, q_rotated, dk_rotated, input_precision="ieee")
    dk_other = tl.dot(ds, q_other, dk_other, input_precision="ieee")
    return dk_rotated, dk_other, dv


@triton.jit(do_not_specialize=UNSPECIALIZED, do_not_specialize_on_alignment=UNALIGNED)
def dkv_kernel(
    grad, qkv, lse, delta, table, turned, cu_seqlens, segment_ids, grad_qkv, scale_log2, scale, heads, blocks,
    BM: tl.constexpr, BN: tl.constexpr, ROTARY: tl.constexpr, LOOP: tl.constexpr, SEGMENTS: tl.constexpr,
):  # fmt: skip
    """The gradients of one block of BN keys and values of one sequence and head, over blocks of BM queries."""
    block, head, start, length = work_item(cu_seqlens, heads, blocks)
    if block * BN < length:
        stride = heads * 192
        q = qkv + start * stride + head * 64
        k, v = q + heads * 64, q + heads * 128
        table += start * 32
        of_queries = turned + (start * heads + head) * 32 if LOOP == TURNED else table
        ids = segment_ids + start
        rows = block * BN + tl.arange(0, BN)
        valid = rows < length
        k_rotated, k_other = load_rotated(k, table, rows, valid, heads, ROTARY, True)
        values = load_rows(v, rows, valid, stride, True)
        k_ids = tl.load(ids + rows, mask=valid, other=0) if SEGMENTS else rows
        grad += (start * heads + head) * 64
        lse += start * heads + head
        delta += start * heads + head
        dk_rotated = tl.zeros((BN, 32), tl.float32)
        dk_other = tl.zeros((BN, 32), tl.float32)
        dv = tl.zeros((BN, 64), tl.float32)
        for first in range(0, length, BM):
            dk_rotated, dk_other, dv = _dkv_step(
                dk_rotated, dk_other, dv, k_rotated, k_other, values, k_ids, q, grad, lse, delta, of_queries, ids,
                first, length, heads, scale_log2, BM, LOOP, SEGMENTS,
            )  # fmt: skip
        dk = grad_qkv + start * stride + (heads + head) * 64
        store_gradient(dk, table, rows, valid, stride, dk_rotated * scale, dk_other * scale, ROTARY)
        store_rows(dk + heads * 64, rows, valid, stride, dv)
