"""Attention kernels for short sequences: as many as fit share one tile, in which each sees only itself.

There is no loop, and the backward pass computes its scores once and all three gradients in one program. It has whole
rows of scores, so it reads neither the output nor the statistics of the forward pass.
"""

from __future__ import annotations

import triton
import triton.language as tl

from reserve_kernels.attention.triton_blocks import (
    UNALIGNED,
    UNSPECIALIZED,
    load_rotated,
    load_rows,
    scores,
    store_gradient,
    store_rows,
)
from reserve_kernels.attention.triton_long import LN_2

MOST_IN_A_TILE = 16
"""Sequences that share a tile, at most: each row of the tile is compared with the ends of so many."""


@triton.jit
def _tile(
    cu_seqlens, segment_ids, heads, sequences, group, B: tl.constexpr, MOST: tl.constexpr, SEGMENTS: tl.constexpr
):
    """Head, first token, rows of the tile, which are valid, and which may attend to which [B, B].

    Rows that are not valid attend to each other, so that none is without keys.
    """
    head = tl.program_id(0) % heads
    first = tl.program_id(0) // heads * group
    start = tl.load(cu_seqlens + first)
    j = tl.arange(0, MOST)
    ends = tl.load(cu_seqlens + tl.minimum(first + 1 + j, sequences)) - start
    length = tl.load(cu_seqlens + tl.minimum(first + group, sequences)) - start
    rows = tl.arange(0, B)
    valid = rows < length
    ended = (rows[:, None] >= ends[None, :]) & (j < group)[None, :]
    sequence = tl.where(valid, tl.sum(ended.to(tl.int32), 1), -1)
    together = sequence[:, None] == tl.trans(sequence[:, None])
    if SEGMENTS:
        ids = tl.load(segment_ids + start + rows, mask=valid, other=0)[:, None]
        together = together & (ids == tl.trans(ids))
    return head, start.to(tl.int64), rows, valid, together


@triton.jit
def _weights(q_rotated, q_other, k_rotated, k_other, together, scale_log2):
    """Softmax before its division [B, B], its sums and the maxima of the scores times scale_log2 [B]."""
    s = tl.where(together, scores(q_rotated, q_other, k_rotated, k_other), float("-inf"))
    top = tl.max(s, 1) * scale_log2
    p = tl.exp2(s * scale_log2 - top[:, None])
    return p, tl.sum(p, 1), top


@triton.jit(do_not_specialize=UNSPECIALIZED, do_not_specialize_on_alignment=UNALIGNED)
def short_forward_kernel(
    qkv, table, cu_seqlens, segment_ids, out, lse, scale_log2, heads, sequences, group,
    B: tl.constexpr, MOST: tl.constexpr, ROTARY: tl.constexpr, SEGMENTS: tl.constexpr,
):  # fmt: skip
    """out [tokens, heads, 64] and lse [tokens, heads] of `group` sequences, B tokens together at most, and one head."""
    head, start, rows, valid, together = _tile(cu_seqlens, segment_ids, heads, sequences, group, B, MOST, SEGMENTS)
    stride = heads * 192
    q = qkv + start * stride + head * 64
    table += start * 32
    q_rotated, q_other = load_rotated(q, table, rows, valid, stride, ROTARY, True)
    k_rotated, k_other = load_rotated(q + heads * 64, table, rows, valid, stride, ROTARY, True)
    values = load_rows(q + heads * 128, rows, valid, stride, True)
    p, total, top = _weights(q_rotated, q_other, k_rotated, k_other, together, scale_log2)
    o = tl.dot(p.to(values.dtype), values, input_precision="ieee") / total[:, None]
    store_rows(out + (start * heads + head) * 64, rows, valid, heads * 64, o)
    tl.store(lse + start * heads + head + rows * heads, (top + tl.log2(total)) * LN_2, mask=valid)


@triton.jit(do_not_specialize=UNSPECIALIZED, do_not_specialize_on_alignment=UNALIGNED)
def short_backward_kernel(
    grad, qkv, table, cu_seqlens, segment_ids, grad_qkv, scale_log2, scale, heads, sequences, group,
    B: tl.constexpr, MOST: tl.constexpr, ROTARY: tl.constexpr, SEGMENTS: tl.constexpr,
):  # fmt: skip
    """The whole gradient of `group` sequences and one head."""
    head, start, rows, valid, together = _tile(cu_seqlens, segment_ids, heads, sequences, group, B, MOST, SEGMENTS)
    stride = heads * 192
    q = qkv + start * stride + head * 64
    dq = grad_qkv + start * stride + head * 64
    table += start * 32
    q_rotated, q_other = load_rotated(q, table, rows, valid, stride, ROTARY, True)
    k_rotated, k_other = load_rotated(q + heads * 64, table, rows, valid, stride, ROTARY, True)
    p, total, _ = _weights(q_rotated, q_other, k_rotated, k_other, together, scale_log2)
    p = p / total[:, None]
    g = load_rows(grad + (start * heads + head) * 64, rows, valid, heads * 64, True)
    dv = tl.dot(tl.trans(p.to(g.dtype)), g, input_precision="ieee")
    store_rows(dq + heads * 128, rows, valid, stride, dv)
    values = load_rows(q + heads * 128, rows, valid, stride, True)
    dp = tl.dot(g, tl.trans(values), input_precision="ieee")
    ds = (p * (dp - tl.sum(p * dp, 1)[:, None]) * scale).to(g.dtype)
    dq_rotated = tl.dot(ds, k_rotated, input_precision="ieee")
    dq_other = tl.dot(ds, k_other, input_precision="ieee")
    store_gradient(dq, table, rows, valid, stride, dq_rotated, dq_other, ROTARY)
    ds = tl.trans(ds)
    dk_rotated = tl.dot(ds, q_rotated, input_precision="ieee")
    dk_other = tl.dot(ds, q_other, input_precision="ieee")
    store_gradient(dq + heads * 64, table, rows, valid, stride, dk_rotated, dk_other, ROTARY)
