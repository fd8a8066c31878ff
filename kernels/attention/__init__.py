"""rotary_attention: packed variable-length attention with the rotary position inside (SPEC 5, 6)."""

from __future__ import annotations

import math

import torch

from reserve_kernels.attention.availability import COMPOSED, IMPLEMENTATIONS
from reserve_kernels.attention.packing import Packing, check_packing
from reserve_kernels.attention.peers import attention_peer
from reserve_kernels.attention.reference import attention_reference, attention_reference_backward
from reserve_kernels.attention.sdpa_cpu import attention_sdpa_cpu, attention_sdpa_cpu_backward
from reserve_kernels.attention.sdpa_padded import SDPA_KERNELS, attention_sdpa_padded
from reserve_kernels.backends import choose, register
from reserve_kernels.checks import FLOATING, check_same_device, check_tensor
from reserve_kernels.precision import without_autocast

__all__ = ["rotary_attention"]

OP = "rotary_attention"
HEAD_SIZE = 64
ANGLES = 16

register(OP, IMPLEMENTATIONS)


def rotary_attention(
    qkv: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    *,
    angles: torch.Tensor | None = None,
    rotary: str = "reserve",
    segment_ids: torch.Tensor | None = None,
    scale: float | None = None,
    backend: str = "auto",
) -> torch.Tensor:
    """Multi-head attention over packed sequences, each token attending to all tokens of its own sequence.

    Args:
        qkv: [tokens, 3, heads, 64] queries, keys and values of all sequences one after another; float16, bfloat16,
            float32 or float64. Under autocast it is cast to autocast's dtype.
        cu_seqlens: int32 [sequences + 1], where each sequence starts, from 0 to `tokens`; empty sequences are allowed.
            Its values are checked on the CPU; on a GPU they are not, since the host would wait for it, and wrong ones
            give wrong results.
        max_seqlen: length of the longest sequence, or more; an int of the host. Too small a one is an error on the CPU
            and gives wrong results on a GPU.
        angles: float32 [tokens, 16], the rotary angles of each token in radians, applied to queries and keys: angle i
            to head dimensions 2 i and 2 i + 1 of the first 32; the others pass through. None for no position. They
            get no gradient.
        rotary: "reserve", the released models' diagonal form (even (sin a - cos a), odd (sin a + cos a)), or
            "standard", the rotation by a (SPEC 5).
        segment_ids: int32 [tokens], in any order; if given, tokens attend only to tokens of their sequence with an
            equal id.
        scale: multiplies the scores; a positive, finite number of the host, 1 / sqrt(64) by default.
        backend: "auto" or a name from `reserve_kernels.backends()`. "flash_attn", "varlen" and "xformers" are other
            libraries' attention, the position applied before it, and take no segment_ids; "sdpa" pads on a GPU.

    Returns:
        [tokens, heads, 64] in qkv's dtype. Softmax statistics are kept in float32 at least.

    Raises:
        TypeError, ValueError: an argument has a wrong type, dtype, shape, device or value; it is named.
        RuntimeError: the named backend cannot run here; or a double backward, of which there is none.

    The gradient of `qkv` comes back packed like `qkv`. Two runs of "triton" or "reference", and on the CPU of "sdpa",
    give the same bits; the other libraries promise that under `torch.use_deterministic_algorithms`. A NaN or infinity
    stays in its own sequence, and may make all of that sequence NaN.
    """
    check_tensor("qkv", qkv, FLOATING)
    if qkv.dim() != 4 or qkv.shape[1] != 3 or qkv.shape[3] != HEAD_SIZE:
        raise ValueError(f"qkv must be [tokens, 3, heads, {HEAD_SIZE}]; got shape {tuple(qkv.shape)}")
    check_tensor("cu_seqlens", cu_seqlens, (torch.int32,))
    check_same_device("cu_seqlens", cu_seqlens, "qkv", qkv)
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] < 1:
        raise ValueError(f"cu_seqlens must be [sequences + 1]; got shape {tuple(cu_seqlens.shape)}")
    if isinstance(max_seqlen, bool | float | torch.Tensor):
        raise TypeError(f"max_seqlen must be an int; got {type(max_seqlen).__name__}")
    if max_seqlen < 0:
        raise ValueError(f"max_seqlen must be at least 0; got {max_seqlen}")
    if rotary not in ("reserve", "standard"):
        raise ValueError(f"rotary must be 'reserve' or 'standard'; got {rotary!r}")
    if angles is not None:
        _check_per_token("angles", angles, qkv, (torch.float32, torch.float64), (ANGLES,))
        angles = angles.detach()
    if segment_ids is not None:
        _check_per_token("segment_ids", segment_ids, qkv, (torch.int32,), ())
    if torch.is_autocast_enabled(qkv.device.type) and qkv.dtype != torch.float64:
        qkv = qkv.to(torch.get_autocast_dtype(qkv.device.type))
    scale = _checked_scale(scale)
    chosen = choose(OP, backend, qkv.device, qkv.dtype)
    packing = Packing(cu_seqlens, max_seqlen, angles, segment_ids, rotary, scale)
    if chosen in SDPA_KERNELS and qkv.device.type != "cpu":
        return attention_sdpa_padded(chosen, qkv, packing)
    if chosen in COMPOSED:
        return attention_peer(chosen, qkv, packing)
    out, _ = torch.ops.reserve_kernels.rotary_attention(qkv, *packing, chosen)
    return out


def _checked_scale(scale: float | None) -> float:
    if scale is None:
        return HEAD_SIZE**-0.5
    if isinstance(scale, torch.Tensor):
        raise TypeError("scale must be a number: a tensor could make the host wait for a GPU; got Tensor")
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be positive and finite; got {scale}")
    return float(scale)


def _check_per_token(
    name: str, value: torch.Tensor, qkv: torch.Tensor, dtypes: tuple[torch.dtype, ...], rest: tuple[int, ...]
) -> None:
    check_tensor(name, value, dtypes)
    check_same_device(name, value, "qkv", qkv)
    if tuple(value.shape) != (qkv.shape[0], *rest):
        raise ValueError(
            f"{name} must be {[qkv.shape[0], *rest]} (qkv has {qkv.shape[0]} tokens); got {tuple(value.shape)}"
        )


@torch.library.custom_op("reserve_kernels::rotary_attention", mutates_args=())
@without_autocast
def _attention(
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
    if backend == "triton":
        from reserve_kernels.attention.triton import attention_triton

        return attention_triton(qkv, packing)
    if backend == "sdpa":
        return attention_sdpa_cpu(qkv, packing)
    out, lse = attention_reference(qkv, packing)
    return out, lse.to(_statistics_dtype(qkv.dtype))


@_attention.register_fake
def _(qkv, *_settings):
    tokens, _, heads, size = qkv.shape
    return qkv.new_empty(tokens, heads, size), qkv.new_empty(tokens, heads, dtype=_statistics_dtype(qkv.dtype))


@torch.library.custom_op("reserve_kernels::rotary_attention_backward", mutates_args=())
@without_autocast
def _attention_backward(
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
    if backend == "triton":
        from reserve_kernels.attention.triton import attention_triton_backward

        return attention_triton_backward(grad, qkv, out, lse, packing)
    if backend == "sdpa":
        return attention_sdpa_cpu_backward(grad, qkv, out, lse, packing)
    return attention_reference_backward(grad, qkv, packing)


@_attention_backward.register_fake
def _(_grad, qkv, *_rest):
    return torch.empty_like(qkv, memory_format=torch.contiguous_format)


def _statistics_dtype(dtype: torch.dtype) -> torch.dtype:
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


_attention.register_autograd(_backward, setup_context=_setup_context)


def _refuse_double_backward(ctx, grad):
    raise RuntimeError("rotary_attention has no double backward")


_attention_backward.register_autograd(_refuse_double_backward)
