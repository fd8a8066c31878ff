"""Attention as anyone would write it in PyTorch, in the dtype of its inputs: what an implementation may lose twice."""

from __future__ import annotations

from itertools import pairwise

import torch

from reserve_kernels.attention.packing import Packing
from reserve_kernels.attention.reference import rotate_qk


def plain_attention(qkv: torch.Tensor, packing: Packing) -> torch.Tensor:
    """qkv [tokens, 3, heads, 64] -> [tokens, heads, 64], each product and the softmax rounded to qkv's dtype."""
    q, k, v = rotate_qk(qkv, packing.angles, packing.rotary).transpose(0, 2).unbind(1)
    outputs = [v[:, :0]]
    for start, end in pairwise(packing.cu_seqlens.tolist()):
        scores = q[:, start:end] @ k[:, start:end].mT * packing.scale
        if packing.segment_ids is not None:
            ids = packing.segment_ids[start:end]
            scores = scores.masked_fill(ids[:, None] != ids, -torch.inf)
        outputs.append(scores.softmax(-1) @ v[:, start:end])
    return torch.cat(outputs, dim=1).transpose(0, 1)
