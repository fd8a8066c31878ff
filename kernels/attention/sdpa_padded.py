"""rotary_attention on a GPU through scaled_dot_product_attention, padded to `max_seqlen` and masked.

Reading the lengths would make the host wait for the GPU, so no shape depends on their values.
"""

from __future__ import annotations

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from reserve_kernels.attention.packing import Packing
from reserve_kernels.attention.placing import place


def attention_sdpa(qkv: torch.Tensor, packing: Packing) -> torch.Tensor:
    """Any kernel that takes a mask. PyTorch's flash kernel takes none; without a mask it is the back end "varlen"."""
    kernels = [SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    return _attention_padded(qkv, packing, kernels)


def attention_sdpa_cudnn(qkv: torch.Tensor, packing: Packing) -> torch.Tensor:
    """cuDNN's kernel."""
    return _attention_padded(qkv, packing, [SDPBackend.CUDNN_ATTENTION])


def attention_sdpa_efficient(qkv: torch.Tensor, packing: Packing) -> torch.Tensor:
    """The memory-efficient kernel."""
    return _attention_padded(qkv, packing, [SDPBackend.EFFICIENT_ATTENTION])


def _attention_padded(qkv: torch.Tensor, packing: Packing, kernels: list[SDPBackend]) -> torch.Tensor:
    """qkv [tokens, 3, heads, 64] -> [tokens, heads, 64] by one of `kernels`; differentiable by autograd."""
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
    with sdpa_kernel(kernels):
        out = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(1, 2)
    token = torch.arange(tokens, device=qkv.device)
    sequence = torch.searchsorted(cu_seqlens[1:].contiguous(), token, right=True)
    return out[sequence, token - cu_seqlens[sequence]]
