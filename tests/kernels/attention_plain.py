"""Attention as anyone would write it in PyTorch, in the dtype of its inputs: what an implementation may lose twice."""

from __future__ import annotations

import torch

from reserve_kernels.attention.packing import CrossPacking, Packing
from reserve_kernels.attention.reference import for_each_head, rotate_apart, rotate_qk, sequences


def plain_attention(qkv: torch.Tensor, packing: Packing) -> torch.Tensor:
    """qkv [tokens, 3, heads, size] -> [tokens, heads, size], each product and the softmax rounded to qkv's dtype."""
    return _attend(*rotate_qk(qkv, packing.angles, packing.rotary).unbind(1), packing.crossed())


def plain_cross_attention(q: torch.Tensor, kv: torch.Tensor, packing: CrossPacking) -> torch.Tensor:
    """The same of q [tokens, heads, size] over kv [tokens_k, 2, kv_heads, size]; 0 for a query without keys."""
    return _attend(*rotate_apart(q, kv, packing), packing)


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packing: CrossPacking) -> torch.Tensor:
    heads = q.shape[1]
    q, k, v = (for_each_head(x, heads).transpose(0, 1) for x in (q, k, v))
    outputs = [v[:, :0]]
    for rows, rows_k in sequences(packing):
        scores = q[:, rows] @ k[:, rows_k].mT * packing.scale
        if packing.segment_ids is not None:
            apart = packing.segment_ids[rows, None] != packing.segment_ids_k[rows_k]
            weights = scores.masked_fill(apart, -1e4).softmax(-1).masked_fill(apart, 0)
        else:
            weights = scores.softmax(-1)
        outputs.append(weights @ v[:, rows_k])
    return torch.cat(outputs, dim=1).transpose(0, 1)
