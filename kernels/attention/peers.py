"""rotary_attention through other libraries' packed attention, the position applied before it.

Each takes qkv [tokens, 3, heads, 64] in float16 or bfloat16 and returns [tokens, heads, 64]; all are differentiable.
None of them supports segment ids: they raise ValueError.
"""

from __future__ import annotations

import torch

from reserve_kernels.attention.packing import Packing
from reserve_kernels.attention.reference import rotate_qk


def _rotated(name: str, qkv: torch.Tensor, packing: Packing) -> torch.Tensor:
    """qkv with the position applied, for the back end `name`."""
    if packing.segment_ids is not None:
        raise ValueError(f"segment_ids: backend {name!r} has no such mask; use 'triton', 'sdpa' or 'reference'")
    return rotate_qk(qkv, packing.angles, packing.rotary)


def attention_flash_attn(qkv: torch.Tensor, packing: Packing) -> torch.Tensor:
    """The flash-attn package; deterministic under `torch.use_deterministic_algorithms`."""
    rotated = _rotated("flash_attn", qkv, packing)
    if qkv.shape[0] == 0:
        return qkv[:, 2]
    from flash_attn import flash_attn_varlen_qkvpacked_func

    deterministic = torch.are_deterministic_algorithms_enabled()
    return flash_attn_varlen_qkvpacked_func(
        rotated, packing.cu_seqlens, packing.max_seqlen, softmax_scale=packing.scale, deterministic=deterministic
    )


def attention_varlen(qkv: torch.Tensor, packing: Packing) -> torch.Tensor:
    """PyTorch's torch.nn.attention.varlen."""
    q, k, v = _rotated("varlen", qkv, packing).unbind(1)
    if qkv.shape[0] == 0:
        return qkv[:, 2]
    from torch.nn.attention.varlen import varlen_attn

    starts, longest = packing.cu_seqlens, packing.max_seqlen
    out = varlen_attn(q, k, v, starts, starts, longest, longest, scale=packing.scale)
    assert isinstance(out, torch.Tensor)  # it returns statistics only on request
    return out


def attention_xformers(qkv: torch.Tensor, packing: Packing) -> torch.Tensor:
    """xformers' memory-efficient attention with a block-diagonal mask."""
    rotated = _rotated("xformers", qkv, packing)
    if qkv.shape[0] == 0:
        return qkv[:, 2]
    from xformers.ops import memory_efficient_attention
    from xformers.ops.fmha.attn_bias import BlockDiagonalMask, _SeqLenInfo

    # The public constructor takes the lengths as a list, for which the host would wait. The last argument is that list,
    # read only when the mask is split again.
    lengths = _SeqLenInfo(packing.cu_seqlens, packing.max_seqlen, 0, [0, qkv.shape[0]])
    q, k, v = (x[None] for x in rotated.unbind(1))
    return memory_efficient_attention(q, k, v, BlockDiagonalMask(lengths, lengths), scale=packing.scale)[0]
