"""rotary_attention on the CPU through PyTorch's flash kernel, without padding.

Sequences of the same length run as one batch. The kernel's softmax statistics are saved, so that the backward pass does
not repeat the forward. The aten functions are what scaled_dot_product_attention calls on a CPU; called directly, they
work below autograd.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from reserve_kernels.attention.packing import CrossPacking, Packing
from reserve_kernels.attention.reference import (
    apply_rotary_,
    for_each_head,
    over_groups,
    rotate_apart,
    rotate_qk,
    sequences,
)

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


WORTH_GATHERING = 64
"""Scattered sequences shorter than this are copied into one batch; for longer ones a call each costs less."""


class _Rows(NamedTuple):
    """Tokens of sequences of the same length: their rows in the packed tensor, their number and their length."""

    rows: slice | torch.Tensor
    sequences: int
    length: int

    def take(self, packed: torch.Tensor) -> torch.Tensor:
        """[tokens, ...] -> [sequences, length, ...]; a view if the sequences are contiguous."""
        return packed[self.rows].unflatten(0, (self.sequences, self.length))

    def by_head(self, packed: torch.Tensor) -> torch.Tensor:
        """[tokens, heads, ...] -> [sequences, heads, length, ...]"""
        return self.take(packed).transpose(1, 2)


def _are_contiguous(starts: list[int], length: int) -> bool:
    return starts[-1] - starts[0] == length * (len(starts) - 1)


def _all(starts: list[int], length: int) -> _Rows:
    if _are_contiguous(starts, length):
        return _Rows(slice(starts[0], starts[-1] + length), len(starts), length)
    first, place = torch.tensor(starts, device="cpu"), torch.arange(length, device="cpu")
    return _Rows((first[:, None] + place).flatten(), len(starts), length)


def _groups(packing: CrossPacking) -> Iterator[tuple[_Rows, _Rows]]:
    """Queries and keys of sequences whose lengths are the same. Sequences without queries or keys are left out."""
    starts_of: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for rows, rows_k in sequences(packing):
        lengths = rows.stop - rows.start, rows_k.stop - rows_k.start
        if min(lengths) > 0:
            starts_of[lengths].append((rows.start, rows_k.start))
    for (length, length_k), both in starts_of.items():
        starts, starts_k = ([pair[i] for pair in both] for i in range(2))
        together = _are_contiguous(starts, length) and _are_contiguous(starts_k, length_k)
        if together or max(length, length_k) < WORTH_GATHERING:
            of_queries = _all(starts, length)
            # Of the same tokens, one set of rows is made.
            same = starts == starts_k and length == length_k
            yield of_queries, of_queries if same else _all(starts_k, length_k)
        else:
            for start, start_k in both:
                yield _all([start], length), _all([start_k], length_k)


def _mask(
    group: tuple[_Rows, _Rows], packing: CrossPacking, like: torch.Tensor
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Additive mask [sequences, 1, queries, keys] of equal segment ids, as the kernel takes it, and which queries have
    no keys [sequences, 1, queries, 1]. To those the mask allows all keys: without any the kernel gives NaN.
    """
    if packing.segment_ids is None or packing.segment_ids_k is None:
        return None, None
    ids, ids_k = group[0].take(packing.segment_ids), group[1].take(packing.segment_ids_k)
    apart = ids[:, None, :, None] != ids_k[:, None, None, :]
    alone = None
    if packing.segment_ids is not packing.segment_ids_k:
        alone = apart.all(-1, keepdim=True)
        apart &= ~alone
    return like.new_zeros(apart.shape).masked_fill_(apart, -torch.inf), alone


def attention_sdpa_cpu(qkv: torch.Tensor, packing: Packing) -> tuple[torch.Tensor, torch.Tensor]:
    """qkv [tokens, 3, heads, size] -> (out [tokens, heads, size], lse [tokens, heads], float32 at least)."""
    q, k, v = rotate_qk(qkv, packing.angles, packing.rotary).unbind(1)
    return _attend(q, k, v, packing.crossed())


def attention_sdpa_cpu_backward(
    grad: torch.Tensor, qkv: torch.Tensor, out: torch.Tensor, lse: torch.Tensor, packing: Packing
) -> torch.Tensor:
    """The gradient of `qkv`, given that of `out` and what the forward returned."""
    rotated = rotate_qk(qkv, packing.angles, packing.rotary)
    grad_qkv = torch.empty_like(rotated, memory_format=torch.contiguous_format)
    q, k, v = rotated.unbind(1)
    _write_gradients(grad_qkv.unbind(1), grad, q, k, v, out, lse, packing.crossed())
    if packing.angles is not None:
        apply_rotary_(grad_qkv[:, :2], packing.angles, packing.rotary, transpose=True)
    return grad_qkv


def cross_attention_sdpa_cpu(
    q: torch.Tensor, kv: torch.Tensor, packing: CrossPacking
) -> tuple[torch.Tensor, torch.Tensor]:
    """q [tokens, heads, size], kv [tokens_k, 2, kv_heads, size] -> (out like q, lse [tokens, heads]).

    A query without keys gives 0, and minus infinity in `lse`.
    """
    q, k, v = rotate_apart(q, kv, packing)
    return _attend(q, for_each_head(k, q.shape[1]), for_each_head(v, q.shape[1]), packing)


def cross_attention_sdpa_cpu_backward(
    grad: torch.Tensor, q: torch.Tensor, kv: torch.Tensor, out: torch.Tensor, lse: torch.Tensor, packing: CrossPacking
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of `q` and `kv`, given that of `out` and what the forward returned."""
    q, k, v = rotate_apart(q, kv, packing)
    k, v = for_each_head(k, q.shape[1]), for_each_head(v, q.shape[1])
    grads = [torch.zeros_like(x, memory_format=torch.contiguous_format) for x in (q, k, v)]
    _write_gradients(grads, grad, q, k, v, out, lse, packing)
    grad_q, grad_k, grad_v = grads[0], *(over_groups(x, kv.shape[2]) for x in grads[1:])
    if packing.angles is not None and packing.angles_k is not None:
        apply_rotary_(grad_q, packing.angles, packing.rotary, transpose=True)
        apply_rotary_(grad_k, packing.angles_k, packing.rotary, transpose=True)
    return grad_q, torch.stack((grad_k, grad_v), dim=1)


def _readable(*operands: torch.Tensor) -> list[torch.Tensor]:
    """The kernel reads the numbers of a head as neighbours, whatever their stride is."""
    return [x if x.stride(-1) == 1 else x.contiguous() for x in operands]


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packing: CrossPacking
) -> tuple[torch.Tensor, torch.Tensor]:
    q, k, v = _readable(q, k, v)
    out = q.new_empty(q.shape)
    lse = q.new_empty(q.shape[:2], dtype=torch.float64 if q.dtype == torch.float64 else torch.float32)
    if packing.cu_seqlens is not packing.cu_seqlens_k:  # queries may lack keys
        out.zero_()
        lse.fill_(-torch.inf)
    if q.shape[1] == 0:  # the kernel would divide by the number of heads
        return out, lse
    for group in _groups(packing):
        of_queries, of_keys = group
        mask, alone = _mask(group, packing, q)
        operands = of_queries.by_head(q), of_keys.by_head(k), of_keys.by_head(v)
        o, statistics = _forward(*operands, 0.0, False, attn_mask=mask, scale=packing.scale)
        if alone is not None:
            o, statistics = o.masked_fill(alone, 0), statistics.masked_fill(alone[..., 0], -torch.inf)
        out[of_queries.rows] = o.transpose(1, 2).flatten(0, 1)
        lse[of_queries.rows] = statistics.transpose(1, 2).flatten(0, 1)
    return out, lse


def _write_gradients(
    grads: Sequence[torch.Tensor],
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    packing: CrossPacking,
) -> None:
    """Writes the gradients of rotated queries and keys, and of values, to `grads`, where sequences have both."""
    if q.shape[1] == 0:
        return
    q, k, v, grad, out = _readable(q, k, v, grad, out)
    for group in _groups(packing):
        of_queries, of_keys = group
        mask, alone = _mask(group, packing, q)
        operands = of_queries.by_head(q), of_keys.by_head(k), of_keys.by_head(v)
        g, o, statistics = (of_queries.by_head(x) for x in (grad, out, lse))
        if alone is not None:
            g, statistics = g.masked_fill(alone, 0), statistics.masked_fill(alone[..., 0], torch.inf)
        results = _backward(g, *operands, o, statistics, 0.0, False, attn_mask=mask, scale=packing.scale)
        for to, rows, result in zip(grads, (of_queries, of_keys, of_keys), results, strict=True):
            to[rows.rows] = result.transpose(1, 2).flatten(0, 1)
