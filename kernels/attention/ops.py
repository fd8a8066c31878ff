"""The differentiable op of rotary_attention, registered with PyTorch."""

from __future__ import annotations

import torch

from reserve_kernels.attention.availability import BACKENDS
from reserve_kernels.attention.packing import Packing, check_packing
from reserve_kernels.precision import without_autocast
from reserve_kernels.transforms import refuse_double_backward


@torch.library.custom_op("reserve_kernels::rotary_attention", mutates_args=())
@without_autocast
def attention(
    qkv: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    angles: torch.Tensor | None,
    segment_ids: torch.Tensor | None,
    rotary: str,
    scale: float,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    packing = Packing(cu_seqlens, max_seqlen, angles, segment_ids, rotary, scale)
    check_packing(qkv, packing)
    forward = BACKENDS[backend].forward
    assert forward is not None, backend
    out, lse = forward(qkv, packing)
    return out, lse.to(statistics_dtype(qkv.dtype))


@attention.register_fake
def _(qkv, *settings):
    tokens, _, heads, size = qkv.shape
    statistics = (heads, tokens) if BACKENDS[settings[-1]].statistics_by_head else (tokens, heads)
    return qkv.new_empty(tokens, heads, size), qkv.new_empty(statistics, dtype=statistics_dtype(qkv.dtype))


@torch.library.custom_op("reserve_kernels::rotary_attention_backward", mutates_args=())
@without_autocast
def attention_backward(
    grad: torch.Tensor,
    qkv: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    angles: torch.Tensor | None,
    segment_ids: torch.Tensor | None,
    rotary: str,
    scale: float,
    backend: str,
) -> torch.Tensor:
    packing = Packing(cu_seqlens, max_seqlen, angles, segment_ids, rotary, scale)
    backward = BACKENDS[backend].backward
    assert backward is not None, backend
    return backward(grad, qkv, out, lse, packing)


@attention_backward.register_fake
def _(_grad, qkv, *_rest):
    return torch.empty_like(qkv, memory_format=torch.contiguous_format)


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    """That of the logsumexp of scores of queries of `dtype`."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _setup_context(ctx, inputs, output):
    qkv, cu_seqlens, ctx.max_seqlen, angles, segment_ids, *ctx.settings = inputs
    out, lse = output
    ctx.save_for_backward(qkv, out, lse, cu_seqlens, angles, segment_ids)
    ctx.mark_non_differentiable(lse)


def _backward(ctx, grad, _grad_lse):
    qkv, out, lse, cu_seqlens, angles, segment_ids = ctx.saved_tensors
    grad_qkv = torch.ops.reserve_kernels.rotary_attention_backward(
        grad, qkv, out, lse, cu_seqlens, ctx.max_seqlen, angles, segment_ids, *ctx.settings
    )
    return grad_qkv, *[None] * 7


attention.register_autograd(_backward, setup_context=_setup_context)


attention_backward.register_autograd(refuse_double_backward("rotary_attention"))
