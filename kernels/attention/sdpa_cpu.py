"""rotary_attention on the CPU through PyTorch's flash kernel, without padding.

Sequences of the same length run as one batch. The kernel's softmax statistics are saved, so that the backward pass does
not repeat the forward. The aten functions are what scaled_dot_product_attention calls on a CPU; called directly, they
work below autograd.
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
"""Scattered sequences shorter than this are copied into one batch; for longer ones a call each costs less."""


class _Group(NamedTuple):
    """Sequences of the same length: their rows in the packed tensor, their number and their length."""

    rows: slice | torch.Tensor
    sequences: int
    length: int

    def take(self, packed: torch.Tensor) -> torch.Tensor:
        """[tokens, ...] -> [sequences, length, ...]; a view if the sequences are contiguous."""
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
            first, place = torch.tensor(starts, device="cpu"), torch.arange(length, device="cpu")
            yield _Group((first[:, None] + place).flatten(), len(starts), length)
        else:
            yield from (_Group(slice(start, start + length), 1, length) for start in starts)


def _mask(group: _Group, segment_ids: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor | None:
    """Additive mask [sequences, 1, length, length] of equal segment ids, as the kernel takes it."""
    if segment_ids is None:
        return None
    ids = group.take(segment_ids)
    apart = ids[:, None, :, None] != ids[:, None, None, :]
    return like.new_zeros(apart.shape).masked_fill_(apart, -torch.inf)


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
