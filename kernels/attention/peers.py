"""rotary_attention through other libraries' packed attention, the position applied before it.

Each takes qkv [tokens, 3, heads, 64] in float16 or bfloat16 and gives [tokens, heads, 64], differentiable by autograd.
None of them knows segment ids.
"""

from __future__ import annotations

import torch

from reserve_kernels.attention.packing import Packing
from reserve_kernels.attention.reference import rotate_qk


def attention_peer(name: str, qkv: torch.Tensor, packing: Packing) -> torch.Tensor:
    """Runs the peer `name`. Raises ValueError for segment ids, which none of them supports."""
    if packing.segment_ids is not None:
        raise ValueError(f"segment_ids: backend {name!r} has no such mask; use 'triton', 'sdpa' or 'reference'")
    if qkv.shape[0] == 0:
        return qkv[:, 2]
    rotated = rotate_qk(qkv, packing.angles, packing.rotary)
    return _PEERS[name](rotated, packing.cu_seqlens, packing.max_seqlen, packing.scale)


def _flash_attn(qkv: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int, scale: float) -> torch.Tensor:
    from flash_attn import flash_attn_varlen_qkvpacked_func

    deterministic = torch.are_deterministic_algorithms_enabled()
    return flash_attn_varlen_qkvpacked_func(
        qkv, cu_seqlens, max_seqlen, softmax_scale=scale, deterministic=deterministic
    )


def _varlen(qkv: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int, scale: float) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = qkv.unbind(1)
    out = varlen_attn(q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, scale=scale)
    assert isinstance(out, torch.Tensor)  # statistics come only when asked for
    return out


def _xformers(qkv: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int, scale: float) -> torch.Tensor:
    from xformers.ops import memory_efficient_attention
    from xformers.ops.fmha.attn_bias import BlockDiagonalMask, _SeqLenInfo

    # Its public constructor takes the lengths as a list, for which the host would wait; the last argument is that list,
    # read only where the mask is split again.
    lengths = _SeqLenInfo(cu_seqlens, max_seqlen, 0, [0, qkv.shape[0]])
    q, k, v = (x[None] for x in qkv.unbind(1))
    return memory_efficient_attention(q, k, v, BlockDiagonalMask(lengths, lengths), scale=scale)[0]


_PEERS = {"flash_attn": _flash_attn, "varlen": _varlen, "xformers": _xformers}
