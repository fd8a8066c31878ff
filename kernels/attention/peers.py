"""rotary_attention through other libraries' packed attention, the position applied before it (placing.py).

Each takes qkv [tokens, 3, heads, size] in float16 or bfloat16, or queries [tokens, heads, size] and keys and values
[tokens_k, 2, kv_heads, size], and returns [tokens, heads, size]; all are differentiable. None of them supports segment
ids: they raise ValueError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

from reserve_kernels.attention.packing import CrossPacking, Packing
from reserve_kernels.attention.placing import place, place_apart
from reserve_kernels.attention.reference import for_each_head


class Attend(Protocol):
    """A library's attention of queries, keys and values [tokens, heads, size] to which the position is applied."""

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packing: CrossPacking, /) -> torch.Tensor: ...


def _of_one(name: str, attend: Attend, qkv: torch.Tensor, packing: Packing) -> torch.Tensor:
    """What the back end `name` does with queries, keys and values of the same tokens."""
    _refuse_segments(name, packing.segment_ids)
    q, k, v = place(qkv, packing.angles, packing.rotary)
    return v if qkv.shape[0] == 0 else attend(q, k, v, packing.crossed())


def _of_two(name: str, attend: Attend, q: torch.Tensor, kv: torch.Tensor, packing: CrossPacking) -> torch.Tensor:
    """The same with keys and values of other tokens. Queries without keys give 0, whatever the library does."""
    _refuse_segments(name, packing.segment_ids)
    placed, k, v = place_apart(q, kv, packing)
    if q.shape[0] == 0 or kv.shape[0] == 0:
        return nothing(q, kv)
    out = attend(placed, k, v, packing)
    if packing.cu_seqlens is packing.cu_seqlens_k:  # no query lacks keys
        return out
    return out.masked_fill(lonely(q, packing)[:, None, None], 0)


def _refuse_segments(name: str, segment_ids: torch.Tensor | None) -> None:
    if segment_ids is not None:
        raise ValueError(f"segment_ids: backend {name!r} has no such mask; use 'triton', 'sdpa' or 'reference'")


def nothing(q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
    """The result of attention that has no queries or no keys at all: 0, with gradients of 0."""
    return q.masked_fill(torch.ones_like(q, dtype=torch.bool), 0) + kv[:0].sum()


def sequence_of_token(x: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
    """The number of each token's sequence, for x [tokens, ...]."""
    token = torch.arange(x.shape[0], device=x.device)
    return torch.searchsorted(cu_seqlens[1:].contiguous(), token, right=True)


def lonely(q: torch.Tensor, packing: CrossPacking) -> torch.Tensor:
    """Which queries [tokens] belong to sequences without keys."""
    return (packing.cu_seqlens_k.diff() == 0)[sequence_of_token(q, packing.cu_seqlens)]


def attention_flash_attn(qkv: torch.Tensor, packing: Packing) -> torch.Tensor:
    """The flash-attn package, version 2; deterministic under `torch.use_deterministic_algorithms`."""
    return _of_one("flash_attn", _flash_attn, qkv, packing)


def cross_attention_flash_attn(q: torch.Tensor, kv: torch.Tensor, packing: CrossPacking) -> torch.Tensor:
    """The same with keys and values of other tokens."""
    return _of_two("flash_attn", _flash_attn, q, kv, packing)


def _flash_attn(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packing: CrossPacking) -> torch.Tensor:
    from flash_attn import flash_attn_varlen_func

    return _flash(flash_attn_varlen_func, q, k, v, packing)


def attention_flash_attn_3(qkv: torch.Tensor, packing: Packing) -> torch.Tensor:
    """FlashAttention-3, for Hopper; deterministic under `torch.use_deterministic_algorithms`."""
    return _of_one("flash_attn_3", _flash_attn_3, qkv, packing)


def cross_attention_flash_attn_3(q: torch.Tensor, kv: torch.Tensor, packing: CrossPacking) -> torch.Tensor:
    """The same with keys and values of other tokens."""
    return _of_two("flash_attn_3", _flash_attn_3, q, kv, packing)


def _flash_attn_3(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packing: CrossPacking) -> torch.Tensor:
    from flash_attn_interface import flash_attn_varlen_func

    return _flash(flash_attn_varlen_func, q, k, v, packing)


def attention_flash_attn_4(qkv: torch.Tensor, packing: Packing) -> torch.Tensor:
    """FlashAttention-4, for Hopper and Blackwell; deterministic under `torch.use_deterministic_algorithms`."""
    return _of_one("flash_attn_4", _flash_attn_4, qkv, packing)


def cross_attention_flash_attn_4(q: torch.Tensor, kv: torch.Tensor, packing: CrossPacking) -> torch.Tensor:
    """The same with keys and values of other tokens."""
    return _of_two("flash_attn_4", _flash_attn_4, q, kv, packing)


# It compiles its kernels when it is called, which torch.compile cannot follow.
@torch._disable_dynamo
def _flash_attn_4(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packing: CrossPacking) -> torch.Tensor:
    from flash_attn.cute import flash_attn_varlen_func

    return _flash(flash_attn_varlen_func, q, k, v, packing)


def _flash(
    attend: Callable[..., Any], q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packing: CrossPacking
) -> torch.Tensor:
    """Calls `flash_attn_varlen_func` by names that versions 2, 3 and 4 have in common."""
    out = attend(
        q,
        k,
        v,
        cu_seqlens_q=packing.cu_seqlens,
        cu_seqlens_k=packing.cu_seqlens_k,
        max_seqlen_q=packing.max_seqlen,
        max_seqlen_k=packing.max_seqlen_k,
        softmax_scale=packing.scale,
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )
    # Version 4, and 3 before its release, return statistics too.
    attended: torch.Tensor = out[0] if isinstance(out, tuple) else out
    return attended


def attention_varlen(qkv: torch.Tensor, packing: Packing) -> torch.Tensor:
    """PyTorch's torch.nn.attention.varlen."""
    return _of_one("varlen", _varlen, qkv, packing)


def cross_attention_varlen(q: torch.Tensor, kv: torch.Tensor, packing: CrossPacking) -> torch.Tensor:
    """The same with keys and values of other tokens, copied for each head that shares them."""
    return _of_two("varlen", _varlen, q, kv, packing)


def _varlen(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packing: CrossPacking) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    starts, longest, starts_k, longest_k, *_ = packing
    k, v = for_each_head(k, q.shape[1]), for_each_head(v, q.shape[1])
    out = varlen_attn(q, k, v, starts, starts_k, longest, longest_k, scale=packing.scale)
    assert isinstance(out, torch.Tensor)  # it returns statistics only on request
    return out


def attention_xformers(qkv: torch.Tensor, packing: Packing) -> torch.Tensor:
    """xformers' memory-efficient attention with a block-diagonal mask."""
    return _of_one("xformers", _xformers, qkv, packing)


def cross_attention_xformers(q: torch.Tensor, kv: torch.Tensor, packing: CrossPacking) -> torch.Tensor:
    """The same with keys and values of other tokens, copied for each head that shares them."""
    return _of_two("xformers", _xformers, q, kv, packing)


def _xformers(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packing: CrossPacking) -> torch.Tensor:
    from xformers.ops import memory_efficient_attention
    from xformers.ops.fmha.attn_bias import BlockDiagonalMask, _SeqLenInfo

    k, v = for_each_head(k, q.shape[1]), for_each_head(v, q.shape[1])
    # The public constructor takes the lengths as a list, for which the host would wait. The last argument is that list,
    # read only when the mask is split again.
    lengths = _SeqLenInfo(packing.cu_seqlens, packing.max_seqlen, 0, [0, q.shape[0]])
    lengths_k = lengths
    if packing.cu_seqlens_k is not packing.cu_seqlens:
        lengths_k = _SeqLenInfo(packing.cu_seqlens_k, packing.max_seqlen_k, 0, [0, k.shape[0]])
    mask = BlockDiagonalMask(lengths, lengths_k)
    return memory_efficient_attention(q[None], k[None], v[None], mask, scale=packing.scale)[0]
