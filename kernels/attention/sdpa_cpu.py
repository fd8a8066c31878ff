"""rotary_attention on the CPU through PyTorch's flash kernel, without work for padding.

Sequences of one length run together as one batch; nothing is padded. The kernel's own statistics are kept, so that
the backward pass does not repeat the forward. (The aten functions are what scaled_dot_product_attention calls there;
called directly, they can be used below autograd.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch

from reserve_kernels.attention.packing import Packing
from reserve_kernels.attention.reference import apply_rotary_, rotate_qk

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


WORTH_GATHERING = 64
"""Scattered sequences shorter than this are copied together; longer ones are a call each, which costs less."""


class _Group(NamedTuple):
    """The sequences of one length: their rows in the packed tensor, their number and their length."""

    rows: slice | torch.Tensor
    sequences: int
    length: int

    def take(self, packed: torch.Tensor) -> torch.Tensor:
        """[tokens, ...] -> [sequences, length, ...]; a view where the sequences are neighbours."""
        return packed[self.rows].unflatten(0, (self.sequences, self.length))


def _groups(cu_seqlens: torch.Tensor) -> Iterator[_Group]:
    starts_of: dict[int, list[int]] = defaultdict(list)
    for start, end in pairwise(cu_seqlens.tolist()):
        if end > start:
            starts_of[end - start].append(start)
    for length, starts in starts_of.items():
        if starts[-1] - starts[0] == length * (len(starts) - 1):
            yield _Group(slice(starts[0], starts[-1] + length), len(starts), length)
        elif length < WORTH_GATHERING:
            yield _Group((torch.tensor(starts)[:, None] + torch.arange(length)).flatten(), len(starts), length)
        else:
            yield from (_Group(slice(start, start + length), 1, length) for start in starts)


def _mask(group: _Group, segment_ids: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor | None:
    """Additive mask [sequences, 1, length, length] of equal segment ids, as the kernel wants it."""
    if segment_ids is None:
        return None
    ids = group.take(segment_ids)
    apart = ids[:, None, :, None] != ids[:, None, None, :]
    return torch.zeros(apart.shape, dtype=like.dtype).masked_fill_(apart, -torch.inf)


def attention_sdpa_cpu(qkv: torch.Tensor, packing: Packing) -> tuple[torch.Tensor, torch.Tensor]:
    """qkv [tokens, 3, heads, 64] -> (out [tokens, heads, 64], lse [tokens, heads], float32 at least)."""
    cu_seqlens, _, angles, segment_ids, rotary, scale = packing
    rotated = rotate_qk(qkv, angles, rotary)
    tokens, _, heads, size = qkv.shape
    out = qkv.new_empty(tokens, heads, size)
    lse = qkv.new_empty(tokens, heads, dtype=torch.float64 if qkv.dtype == torch.float64 else torch.float32)
    for group in _groups(cu_seqlens):
        q, k, v = group.take(rotated).permute(2, 0, 3, 1, 4)
        o, statistics = _forward(q, k, v, 0.0, False, attn_mask=_mask(group, segment_ids, q), scale=scale)
        out[group.rows] = o.transpose(1, 2).flatten(0, 1)
        lse[group.rows] = statistics.transpose(1, 2).flatten(0, 1)
    return out, lse


def attention_sdpa_cpu_backward(
    grad: torch.Tensor, qkv: torch.Tensor, out: torch.Tensor, lse: torch.Tensor, packing: Packing
) -> torch.Tensor:
    """The gradient of `qkv`, given that of `out` and what the forward returned."""
    cu_seqlens, _, angles, segment_ids, rotary, scale = packing
    rotated = rotate_qk(qkv, angles, rotary)
    grad_qkv = torch.empty_like(rotated, memory_format=torch.contiguous_format)
    for group in _groups(cu_seqlens):
        q, k, v = group.take(rotated).permute(2, 0, 3, 1, 4)
        g, o, statistics = (group.take(t).transpose(1, 2) for t in (grad, out, lse))
        grads = _backward(g, q, k, v, o, statistics, 0.0, False, attn_mask=_mask(group, segment_ids, q), scale=scale)
        for part, grad_part in enumerate(grads):
            grad_qkv[group.rows, part] = grad_part.transpose(1, 2).flatten(0, 1)
    if angles is not None:
        apply_rotary_(grad_qkv[:, :2], angles, rotary, transpose=True)
    return grad_qkv
