"""rotary_attention through other libraries' packed attention, the position applied before it (placing.py).

Each takes qkv [tokens, 3, heads, 64] in float16 or bfloat16 and returns [tokens, heads, 64]; all are differentiable.
None of them supports segment ids: they raise ValueError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from reserve_kernels.attention.packing import Packing
from reserve_kernels.attention.placing import place


def _placed(name: str, qkv: torch.Tensor, packing: Packing) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values [tokens, heads, 64] for the back end `name`, the position applied."""
    if packing.segment_ids is not None:
        raise ValueError(f"segment_ids: backend {name!r} has no such mask; use 'triton', 'sdpa' or 'reference'")
    return place(qkv, packing.angles, packing.rotary)


def attention_flash_attn(qkv: torch.Tensor, packing: Packing) -> torch.Tensor:
    """The flash-attn package, version 2; deterministic under `torch.use_deterministic_algorithms`."""
    q, k, v = _placed("flash_attn", qkv, packing)
    if qkv.shape[0] == 0:
        return v
    from flash_attn import flash_attn_varlen_func

    return _flash(flash_attn_varlen_func, q, k, v, packing)


def attention_flash_attn_3(qkv: torch.Tensor, packing: Packing) -> torch.Tensor:
    """FlashAttention-3, for Hopper; deterministic under `torch.use_deterministic_algorithms`."""
    q, k, v = _placed("flash_attn_3", qkv, packing)
    if qkv.shape[0] == 0:
        return v
    from flash_attn_interface import flash_attn_varlen_func

    return _flash(flash_attn_varlen_func, q, k, v, packing)


def attention_flash_attn_4(qkv: torch.Tensor, packing: Packing) -> torch.Tensor:
    """FlashAttention-4, for Hopper and Blackwell; deterministic under `torch.use_deterministic_algorithms`."""
    q, k, v = _placed("flash_attn_4", qkv, packing)
    if qkv.shape[0] == 0:
        return v
    return _flash_4(q, k, v, packing)


# It compiles its kernels when it is called, which torch.compile cannot follow.
@torch._disable_dynamo
def _flash_4(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packing: Packing) -> torch.Tensor:
    from flash_attn.cute import flash_attn_varlen_func

    return _flash(flash_attn_varlen_func, q, k, v, packing)


def _flash(
    attend: Callable[..., Any], q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packing: Packing
) -> torch.Tensor:
    """Calls `flash_attn_varlen_func` by names that versions 2, 3 and 4 have in common."""
    out = attend(
        q,
        k,
        v,
        cu_seqlens_q=packing.cu_seqlens,
        cu_seqlens_k=packing.cu_seqlens,
        max_seqlen_q=packing.max_seqlen,
        max_seqlen_k=packing.max_seqlen,
        softmax_scale=packing.scale,
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )
    # Version 4, and 3 before its release, return statistics too.
    attended: torch.Tensor = out[0] if isinstance(out, tuple) else out
    return attended


def attention_varlen(qkv: torch.Tensor, packing: Packing) -> torch.Tensor:
    """PyTorch's torch.nn.attention.varlen."""
    q, k, v = _placed("varlen", qkv, packing)
    if qkv.shape[0] == 0:
        return v
    from torch.nn.attention.varlen import varlen_attn

    starts, longest = packing.cu_seqlens, packing.max_seqlen
    out = varlen_attn(q, k, v, starts, starts, longest, longest, scale=packing.scale)
    assert isinstance(out, torch.Tensor)  # it returns statistics only on request
    return out


def attention_xformers(qkv: torch.Tensor, packing: Packing) -> torch.Tensor:
    """xformers' memory-efficient attention with a block-diagonal mask."""
    q, k, v = _placed("xformers", qkv, packing)
    if qkv.shape[0] == 0:
        return v
    from xformers.ops import memory_efficient_attention
    from xformers.ops.fmha.attn_bias import BlockDiagonalMask, _SeqLenInfo

    # The public constructor takes the lengths as a list, for which the host would wait. The last argument is that list,
    # read only when the mask is split again.
    lengths = _SeqLenInfo(packing.cu_seqlens, packing.max_seqlen, 0, [0, qkv.shape[0]])
    mask = BlockDiagonalMask(lengths, lengths)
    return memory_efficient_attention(q[None], k[None], v[None], mask, scale=packing.scale)[0]
