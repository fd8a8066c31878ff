"""Attention kernels for short sequences: as many as fit share one tile, and each attends only to itself.

There is no loop, and the backward pass computes the scores once and all three gradients in one program. It has whole
rows of scores, so it does not read the output of the forward pass.

A weight of 0 does not keep NaN out of a sum. NaN and infinities stay in their own sequence as follows.
Forward: values are made finite before they are multiplied, and the scores of a key whose value was not finite become
NaN, but for those of other sequences, which are masked. Backward: statistics that are not finite say which rows of
queries, keys and values may be bad; these are not read, and their scores become NaN likewise.
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
"""Most sequences that share a tile: each row of the tile is compared with the ends of that many."""


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
def _finite(x):
    """`x` [B, n] with NaN and infinities set to 0, and [B]: NaN for rows that had any, 0 for the others."""
    zeros = x.to(tl.float32) * 0.0
    return tl.where(zeros == 0.0, x, tl.zeros_like(x)), tl.sum(zeros, 1)


@triton.jit
def _or_else(x, otherwise):
    """`x`, or `otherwise` where it is not finite."""
    return tl.where(x - x == 0.0, x, otherwise)


@triton.jit
def _weights(q_rotated, q_other, k_rotated, k_other, spoiled, together, scale_log2):
    """Softmax before its division [B, B], its sums and the maxima of the scores times scale_log2 [B].

    `spoiled` [B] is NaN for keys that are to make their sequence NaN, else 0. The weights of other sequences are 0 in
    any case.
    """
    s = scores(q_rotated, q_other, k_rotated, k_other) + spoiled[None, :]
    s = tl.where(together, s, float("-inf"))
    top = _or_else(tl.max(s, 1) * scale_log2, 0.0)
    p = tl.exp2(s * scale_log2 - top[:, None])
    return p, tl.sum(p, 1), top


@triton.jit(do_not_specialize=UNSPECIALIZED, do_not_specialize_on_alignment=UNALIGNED)
def short_forward_kernel(
    qkv, table, cu_seqlens, segment_ids, out, lse, scale_log2, heads, tokens, sequences, group,
    B: tl.constexpr, MOST: tl.constexpr, ROTARY: tl.constexpr, SEGMENTS: tl.constexpr,
):  # fmt: skip
    """out [tokens, heads, 64] and lse [heads, tokens] of `group` sequences, B tokens together at most, and one head.

    lse is not finite where the row's query, key or value is not.
    """
    head, start, rows, valid, together = _tile(cu_seqlens, segment_ids, heads, sequences, group, B, MOST, SEGMENTS)
    stride = heads * 192
    q = qkv + start * stride + head * 64
    table += start * 32
    q_rotated, q_other = load_rotated(q, table, rows, valid, heads, ROTARY)
    k_rotated, k_other = load_rotated(q + heads * 64, table, rows, valid, heads, ROTARY)
    values = load_rows(q + heads * 128, rows, valid, stride, True)
    values, spoiled = _finite(values)
    # A key that is not finite need not show in the output, as when its score is -inf. The backward pass needs to know
    # about it, so it makes the statistics NaN.
    of_keys = tl.sum(k_rotated.to(tl.float32) * 0.0 + k_other.to(tl.float32) * 0.0, 1)
    p, total, top = _weights(q_rotated, q_other, k_rotated, k_other, spoiled, together, scale_log2)
    o = tl.dot(p.to(values.dtype), values, input_precision="ieee") / total[:, None]
    store_rows(out + (start * heads + head) * 64, rows, valid, heads * 64, o)
    tl.store(lse + head.to(tl.int64) * tokens + start + rows, (top + tl.log2(total)) * LN_2 + of_keys, mask=valid)


@triton.jit(do_not_specialize=UNSPECIALIZED, do_not_specialize_on_alignment=UNALIGNED)
def short_backward_kernel(
    grad, qkv, lse, table, cu_seqlens, segment_ids, grad_qkv, scale_log2, scale, heads, tokens, sequences, group,
    B: tl.constexpr, MOST: tl.constexpr, ROTARY: tl.constexpr, SEGMENTS: tl.constexpr,
):  # fmt: skip
    """The whole gradient of `group` sequences and one head."""
    head, start, rows, valid, together = _tile(cu_seqlens, segment_ids, heads, sequences, group, B, MOST, SEGMENTS)
    stride = heads * 192
    q = qkv + start * stride + head * 64
    dq = grad_qkv + start * stride + head * 64
    table += start * 32
    of_forward = tl.load(lse + head.to(tl.int64) * tokens + start + rows, mask=valid, other=0.0) * 0.0
    good = valid & (of_forward == 0.0)
    q_rotated, q_other = load_rotated(q, table, rows, good, heads, ROTARY)
    k_rotated, k_other = load_rotated(q + heads * 64, table, rows, good, heads, ROTARY)
    g, of_g = _finite(load_rows(grad + (start * heads + head) * 64, rows, valid, heads * 64, True))
    p, total, _ = _weights(q_rotated, q_other, k_rotated, k_other, of_forward + of_g, together, scale_log2)
    p = p / _or_else(total, 1.0)[:, None]
    # The values' gradient comes last (below): otherwise Triton 3.6 takes 44 registers more.
    weights = p.to(g.dtype)
    values = load_rows(q + heads * 128, rows, good, stride, True)
    dp = tl.dot(g, tl.trans(values), input_precision="ieee")
    d = _or_else(tl.sum(p * dp, 1), 0.0)
    ds = (p * (dp - d[:, None]) * scale).to(g.dtype)
    dq_rotated = tl.dot(ds, k_rotated, input_precision="ieee")
    dq_other = tl.dot(ds, k_other, input_precision="ieee")
    store_gradient(dq, table, rows, valid, stride, dq_rotated, dq_other, ROTARY)
    ds = tl.trans(ds)
    dk_rotated = tl.dot(ds, q_rotated, input_precision="ieee")
    dk_other = tl.dot(ds, q_other, input_precision="ieee")
    store_gradient(dq + heads * 64, table, rows, valid, stride, dk_rotated, dk_other, ROTARY)
    dv = tl.dot(tl.trans(weights), g, input_precision="ieee")
    store_rows(dq + heads * 128, rows, valid, stride, dv)
