"""The differentiable op of rotary_attention for keys and values of other tokens, registered with PyTorch."""

from __future__ import annotations

import torch

from reserve_kernels.attention.availability import BACKENDS
from reserve_kernels.attention.ops import statistics_dtype
from reserve_kernels.attention.packing import CrossPacking, check_cross_packing
from reserve_kernels.precision import without_autocast
from reserve_kernels.transforms import refuse_double_backward


@torch.library.custom_op("reserve_kernels::rotary_cross_attention", mutates_args=())
@without_autocast
def cross_attention(
    q: torch.Tensor,
    kv: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_k: int,
    angles: torch.Tensor | None,
    angles_k: torch.Tensor | None,
    segment_ids: torch.Tensor | None,
    segment_ids_k: torch.Tensor | None,
    rotary: str,
    scale: float,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    packing = CrossPacking(
        cu_seqlens, max_seqlen, cu_seqlens_k, max_seqlen_k, angles, angles_k, segment_ids, segment_ids_k, rotary, scale
    )
    check_cross_packing(q, kv, packing)
    forward = BACKENDS[backend].cross_forward
    assert forward is not None, backend
    out, lse = forward(q, kv, packing)
    return out, lse.to(statistics_dtype(q.dtype))


@cross_attention.register_fake
def _(q, _kv, *_settings):
    return q.new_empty(q.shape), q.new_empty(q.shape[:2], dtype=statistics_dtype(q.dtype))


@torch.library.custom_op("reserve_kernels::rotary_cross_attention_backward", mutates_args=())
@without_autocast
def cross_attention_backward(
    grad: torch.Tensor,
    q: torch.Tensor,
    kv: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_k: int,
    angles: torch.Tensor | None,
    angles_k: torch.Tensor | None,
    segment_ids: torch.Tensor | None,
    segment_ids_k: torch.Tensor | None,
    rotary: str,
    scale: float,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    packing = CrossPacking(
        cu_seqlens, max_seqlen, cu_seqlens_k, max_seqlen_k, angles, angles_k, segment_ids, segment_ids_k, rotary, scale
    )
    backward = BACKENDS[backend].cross_backward
    assert backward is not None, backend
    return backward(grad, q, kv, out, lse, packing)


@cross_attention_backward.register_fake
def _(_grad, q, kv, *_rest):
    grad_q, grad_kv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, kv))
    return grad_q, grad_kv


def _setup_context(ctx, inputs, output):
    q, kv, starts, ctx.max_seqlen, starts_k, ctx.max_seqlen_k, angles, angles_k, ids, ids_k, *ctx.settings = inputs
    ctx.save_for_backward(q, kv, *output, starts, starts_k, angles, angles_k, ids, ids_k)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, grad, _grad_lse):
    q, kv, out, lse, starts, starts_k, *per_token = ctx.saved_tensors
    grads = torch.ops.reserve_kernels.rotary_cross_attention_backward(
        grad, q, kv, out, lse, starts, ctx.max_seqlen, starts_k, ctx.max_seqlen_k, *per_token, *ctx.settings
    )
    return *grads, *[None] * 11


cross_attention.register_autograd(_backward, setup_context=_setup_context)


cross_attention_backward.register_autograd(refuse_double_backward("rotary_attention"))
