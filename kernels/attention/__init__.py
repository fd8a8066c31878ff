"""rotary_attention: packed variable-length attention with the rotary position inside (SPEC 5, 6)."""

from __future__ import annotations

import math

import numpy as np
import torch

from reserve_kernels.attention.availability import BACKENDS, AttentionBackend
from reserve_kernels.attention.native import slower_than_sdpa
from reserve_kernels.attention.ops import attention
from reserve_kernels.attention.packing import Packing
from reserve_kernels.checks import FLOATING, check_same_device, check_tensor
from reserve_kernels.precision import computing_dtype
from reserve_kernels.transforms import refuse_transforms

__all__ = ["rotary_attention"]

HEAD_SIZE = 64
ANGLES = 16


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
            Values are validated on the CPU only: on a GPU the host would wait for them, so invalid values give wrong
            results.
        max_seqlen: length of the longest sequence, or an upper bound of it; a Python int. If it is too small, the CPU
            raises an error and a GPU gives wrong results.
        angles: float32 [tokens, 16], the rotary angles of each token in radians, applied to queries and keys: angle i
            to head dimensions 2 i and 2 i + 1 of the first 32; the others pass through. None for no position. Angles
            get no gradient.
        rotary: "reserve", the released models' diagonal form (even (sin a - cos a), odd (sin a + cos a)), or
            "standard", the rotation by a (SPEC 5).
        segment_ids: int32 [tokens], in any order. With it, tokens attend only to tokens of their own sequence that
            have the same id.
        scale: multiplies the scores; a positive, finite Python number, 1 / sqrt(64) by default.
        backend: "auto" or a name from `reserve_kernels.backends()`. "flash_attn", "flash_attn_3", "flash_attn_4",
            "varlen" and "xformers" apply the position first, in one pass, and then call that library's attention; they
            take no segment_ids. `torch.compile` leaves "flash_attn_4" to eager mode: with fullgraph=True it raises an
            error. "sdpa" pads on a GPU.
            "native" takes float32 and bfloat16 on a CPU; "auto" leaves float32 sequences of more than 64 tokens to
            "sdpa" if the processor lacks AVX2.

    Returns:
        [tokens, heads, 64] in qkv's dtype. Softmax statistics are kept in float32 at least. In float16 a position can
        take queries and keys of more than 46,000 beyond the largest number in every back end but "reference".

    Raises:
        TypeError, ValueError: an argument has a wrong type, dtype, shape, device or value; the message names it.
        RuntimeError: the named backend cannot run here; or a double backward, which is not implemented.
        NotImplementedError: under vmap, forward-mode differentiation or torch.func.grad and its relatives.

    The gradient of `qkv` is packed like `qkv`. "triton", "native" and "reference" are deterministic, and "sdpa" is on
    the CPU; the other libraries are under `torch.use_deterministic_algorithms`. A NaN or infinity stays in its own
    sequence, and may make all of that sequence NaN.
    """
    check_tensor("qkv", qkv, FLOATING)
    if qkv.dim() != 4 or qkv.shape[1] != 3 or qkv.shape[3] != HEAD_SIZE:
        raise ValueError(f"qkv must be [tokens, 3, heads, {HEAD_SIZE}]; got shape {tuple(qkv.shape)}")
    check_tensor("cu_seqlens", cu_seqlens, (torch.int32,))
    check_same_device("cu_seqlens", cu_seqlens, "qkv", qkv)
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] < 1:
        raise ValueError(f"cu_seqlens must be [sequences + 1]; got shape {tuple(cu_seqlens.shape)}")
    if isinstance(max_seqlen, bool) or not isinstance(max_seqlen, (int, np.integer, torch.SymInt)):
        raise TypeError(f"max_seqlen must be an int; got {type(max_seqlen).__name__}")
    if max_seqlen < 0:
        raise ValueError(f"max_seqlen must be at least 0; got {max_seqlen}")
    if rotary not in ("reserve", "standard"):
        raise ValueError(f"rotary must be 'reserve' or 'standard'; got {rotary!r}")
    if angles is not None:
        _check_per_token("angles", angles, qkv, (torch.float32, torch.float64), (ANGLES,))
    if segment_ids is not None:
        _check_per_token("segment_ids", segment_ids, qkv, (torch.int32,), ())
    refuse_transforms("rotary_attention", qkv, cu_seqlens, angles, segment_ids)
    angles = None if angles is None else angles.detach()
    qkv = qkv.to(computing_dtype(qkv.dtype, qkv.device))
    scale = _checked_scale(scale)

    def refuse(candidate: AttentionBackend) -> str | None:
        is_named = backend != "auto"
        return None if is_named or candidate.name != "native" else slower_than_sdpa(qkv.dtype, max_seqlen)

    chosen = BACKENDS.choose(backend, qkv.device, qkv.dtype, refuse)
    packing = Packing(cu_seqlens, max_seqlen, angles, segment_ids, rotary, scale)
    if chosen.composed is not None and (chosen.forward is None or qkv.device.type not in ("cpu", "meta")):
        return chosen.composed(qkv, packing)
    out, _ = attention(qkv, *packing, chosen.name)
    return out


def _checked_scale(scale: float | None) -> float:
    if scale is None:
        return HEAD_SIZE**-0.5
    if isinstance(scale, torch.Tensor):
        raise TypeError("scale must be a number: a tensor could make the host wait for a GPU; got Tensor")
    if not isinstance(scale, (int, float, np.number, torch.SymInt, torch.SymFloat)):
        raise TypeError(f"scale must be a number; got {type(scale).__name__}")
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
