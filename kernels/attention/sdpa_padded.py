"""rotary_attention on a GPU through scaled_dot_product_attention, padded to `max_seqlen` and masked.

Reading the lengths would make the host wait for the GPU, so no shape depends on their values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from reserve_kernels.attention.packing import CrossPacking, Packing
from reserve_kernels.attention.peers import nothing, sequence_of_token
from reserve_kernels.attention.placing import place, place_apart
from reserve_kernels.attention.reference import for_each_head

WITH_A_MASK = (SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
"""PyTorch's flash kernel takes no mask; without one it is the back end "varlen"."""
Kernels = Sequence[SDPBackend]


def attention_sdpa(qkv: torch.Tensor, packing: Packing) -> torch.Tensor:
    """Any kernel that takes a mask."""
    return _attention_padded(qkv, packing, WITH_A_MASK)


def cross_attention_sdpa(q: torch.Tensor, kv: torch.Tensor, packing: CrossPacking) -> torch.Tensor:
    """The same with keys and values of other tokens."""
    return _cross_attention_padded(q, kv, packing, WITH_A_MASK)


def attention_sdpa_cudnn(qkv: torch.Tensor, packing: Packing) -> torch.Tensor:
    """cuDNN's kernel."""
    return _attention_padded(qkv, packing, (SDPBackend.CUDNN_ATTENTION,))


def cross_attention_sdpa_cudnn(q: torch.Tensor, kv: torch.Tensor, packing: CrossPacking) -> torch.Tensor:
    """The same with keys and values of other tokens."""
    return _cross_attention_padded(q, kv, packing, (SDPBackend.CUDNN_ATTENTION,))


def attention_sdpa_efficient(qkv: torch.Tensor, packing: Packing) -> torch.Tensor:
    """The memory-efficient kernel."""
    return _attention_padded(qkv, packing, (SDPBackend.EFFICIENT_ATTENTION,))


def cross_attention_sdpa_efficient(q: torch.Tensor, kv: torch.Tensor, packing: CrossPacking) -> torch.Tensor:
    """The same with keys and values of other tokens."""
    return _cross_attention_padded(q, kv, packing, (SDPBackend.EFFICIENT_ATTENTION,))


def _attention_padded(qkv: torch.Tensor, packing: Packing, kernels: Kernels) -> torch.Tensor:
    """qkv [tokens, 3, heads, size] -> [tokens, heads, size] by one of `kernels`; differentiable by autograd."""
    cu_seqlens, max_seqlen, angles, segment_ids, rotary, scale = packing
    tokens = qkv.shape[0]
    if tokens == 0:
        return qkv[:, 2]
    position = torch.arange(max_seqlen, device=qkv.device)
    valid = position < cu_seqlens.diff()[:, None]
    # A padded row is a copy of the first of its sequence: a NaN in one sequence stays out of the others.
    first = cu_seqlens[:-1, None].clamp(max=tokens - 1)
    rows = torch.where(valid, first + position, first)
    # Gathered together: the gradient of a gather sorts its rows.
    q, k, v = torch.stack(place(qkv, angles, rotary), 1)[rows].permute(2, 0, 3, 1, 4)
    mask = valid[:, None, None, :]
    if segment_ids is not None:
        ids = segment_ids[rows]
        mask = mask & (ids[:, None, :, None] == ids[:, None, None, :])
    # A padded row attends to its own place: a row without keys would be NaN.
    mask = mask | (~valid)[:, None, :, None] & torch.eye(max_seqlen, dtype=torch.bool, device=qkv.device)
    with sdpa_kernel(list(kernels)):
        out = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(1, 2)
    return _packed(out, cu_seqlens, qkv)


def _packed(padded: torch.Tensor, cu_seqlens: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """[sequences, longest, ...] -> [tokens, ...], as many as `like` has."""
    sequence = sequence_of_token(like, cu_seqlens)
    token = torch.arange(like.shape[0], device=like.device)
    return padded[sequence, token - cu_seqlens[sequence]]


class _Padded(NamedTuple):
    """Where the tokens of each sequence lie in the packed tensor [sequences, longest], and which of them are there."""

    rows: torch.Tensor
    valid: torch.Tensor

    @staticmethod
    def of(x: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int) -> _Padded:
        place = torch.arange(max_seqlen, device=x.device)
        valid = place < cu_seqlens.diff()[:, None]
        return _Padded((cu_seqlens[:-1, None] + place).clamp(max=x.shape[0] - 1), valid)

    def take(self, packed: torch.Tensor) -> torch.Tensor:
        """[tokens, heads, size] -> [sequences, heads, longest, size], 0 where there is no token."""
        return packed[self.rows].masked_fill(~self.valid[..., None, None], 0).transpose(1, 2)


def _cross_attention_padded(q: torch.Tensor, kv: torch.Tensor, packing: CrossPacking, kernels: Kernels) -> torch.Tensor:
    """q [tokens, heads, size], kv [tokens_k, 2, kv_heads, size] -> like q; shared keys are copied for each head."""
    if q.shape[0] == 0 or kv.shape[0] == 0:
        return nothing(q, kv)
    heads = q.shape[1]
    placed, k, v = place_apart(q, kv, packing)
    queries = _Padded.of(q, packing.cu_seqlens, packing.max_seqlen)
    keys = _Padded.of(kv, packing.cu_seqlens_k, packing.max_seqlen_k)
    mask = keys.valid[:, None, None, :]
    if packing.segment_ids is not None and packing.segment_ids_k is not None:
        ids, ids_k = packing.segment_ids[queries.rows], packing.segment_ids_k[keys.rows]
        mask = mask & (ids[:, None, :, None] == ids_k[:, None, None, :])
    # Without keys a row would be NaN: it gets all of them, and its result is replaced.
    alone = ~mask.any(-1, keepdim=True)
    operands = queries.take(placed), keys.take(for_each_head(k, heads)), keys.take(for_each_head(v, heads))
    with sdpa_kernel(list(kernels)):
        out = scaled_dot_product_attention(*operands, attn_mask=mask | alone, scale=packing.scale)
    return _packed(out.masked_fill(alone, 0).transpose(1, 2), packing.cu_seqlens, q)
