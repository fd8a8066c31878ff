"""rotary_attention: packed variable-length attention with the rotary position inside (SPEC 5, 6)."""

from __future__ import annotations

import torch

from reserve_kernels.attention.arguments import (
    check_angles,
    check_q_and_kv,
    check_qkv,
    check_rotary,
    check_same_dtype,
    check_segment_ids,
    check_sequences,
    checked_scale,
    of_keys,
)
from reserve_kernels.attention.availability import BACKENDS, AttentionBackend, slow_in_triton
from reserve_kernels.attention.cross_ops import cross_attention
from reserve_kernels.attention.native import slower_for_one_query, slower_than_sdpa
from reserve_kernels.attention.ops import attention
from reserve_kernels.attention.packing import CrossPacking, Packing
from reserve_kernels.precision import computing_dtype
from reserve_kernels.transforms import refuse_transforms

__all__ = ["rotary_attention"]


def rotary_attention(
    qkv: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    *,
    kv: torch.Tensor | None = None,
    cu_seqlens_k: torch.Tensor | None = None,
    max_seqlen_k: int | None = None,
    angles: torch.Tensor | None = None,
    angles_k: torch.Tensor | None = None,
    rotary: str = "reserve",
    segment_ids: torch.Tensor | None = None,
    segment_ids_k: torch.Tensor | None = None,
    scale: float | None = None,
    backend: str = "auto",
) -> torch.Tensor:
    """Multi-head attention over packed sequences, each token attending to all tokens of its own sequence.

    With `kv`, tokens attend to others: cross-attention, or self-attention whose heads share keys.

    Args:
        qkv: [tokens, 3, heads, size] queries, keys and values of all sequences one after another, `size` 32, 64, 96 or
            128; float16, bfloat16, float32 or float64. Under autocast it is cast to autocast's dtype. With `kv`, the
            queries alone, [tokens, heads, size].
        cu_seqlens: int32 [sequences + 1], where each sequence starts, from 0 to `tokens`; empty sequences are allowed.
            Values are validated on the CPU only: on a GPU the host would wait for them, so invalid values give wrong
            results.
        max_seqlen: length of the longest sequence, or an upper bound of it; a Python int. If it is too small, the CPU
            raises an error and a GPU gives wrong results.
        kv: [tokens_k, 2, kv_heads, size] keys and values, in qkv's dtype. `heads` is a multiple of `kv_heads`: head h
            attends to keys of head h // (heads / kv_heads).
        cu_seqlens_k, max_seqlen_k: those of `kv`, for as many sequences; None for keys with the queries' lengths. A
            query whose sequence has no keys, or none of its segment, gives 0.
        angles: float32 or float64 [tokens, n], the rotary angles of each token in radians, applied to queries and keys:
            angle i to head dimensions 2 i and 2 i + 1. `n` is from 1 to size / 2; the dimensions from 2 n on pass
            through. None for no position. Angles get no gradient.
        angles_k: [tokens_k, n], those of `kv`. None for `angles`, if keys have the queries' lengths.
        rotary: "reserve", the released models' diagonal form (even (sin a - cos a), odd (sin a + cos a)), or
            "standard", the rotation by a (SPEC 5).
        segment_ids: int32 [tokens], in any order. With it, tokens attend only to tokens of their own sequence that
            have the same id.
        segment_ids_k: int32 [tokens_k], those of `kv`. None for `segment_ids`, if keys have the queries' lengths.
        scale: multiplies the scores; a positive, finite Python number, 1 / sqrt(size) by default.
        backend: "auto" or a name from `reserve_kernels.backends()`. "flash_attn", "flash_attn_3", "flash_attn_4",
            "varlen" and "xformers" apply the position first, in one pass, and then call that library's attention; they
            take no segment_ids. `torch.compile` leaves "flash_attn_4" to eager mode: with fullgraph=True it raises an
            error. "sdpa" pads on a GPU. "triton" takes no kv: "auto" goes to the others, as it does below
            compute capability 9.0 for heads of 96 and 128 without segment_ids.
            "native" takes float32 and bfloat16 on a CPU; "auto" leaves float32 sequences of more than 64 tokens to
            "sdpa" if the processor lacks AVX2, and those of one query over 512 keys or more without a gradient.

    Returns:
        [tokens, heads, size] in qkv's dtype. Softmax statistics are kept in float32 at least. In float16 a position can
        take queries and keys of more than 46,000 beyond the largest number in every back end but "reference".

    Raises:
        TypeError, ValueError: an argument has a wrong type, dtype, shape, device or value; the message names it.
        RuntimeError: the named backend cannot run here, or takes no kv; or a double backward, which is not implemented.
        NotImplementedError: under vmap, forward-mode differentiation or torch.func.grad and its relatives.

    The gradients of `qkv` and `kv` are packed like them. "triton", "native" and "reference" are deterministic, and
    "sdpa" is on the CPU; the other libraries are under `torch.use_deterministic_algorithms`. A NaN or infinity stays in
    its own sequence, and may make all of that sequence NaN.
    """
    if kv is not None:
        return _cross_attention(
            qkv, kv, cu_seqlens, max_seqlen, cu_seqlens_k, max_seqlen_k, angles, angles_k, rotary, segment_ids,
            segment_ids_k, scale, backend,
        )  # fmt: skip
    for_keys = {"cu_seqlens_k": cu_seqlens_k, "max_seqlen_k": max_seqlen_k, "angles_k": angles_k}
    for name, value in (for_keys | {"segment_ids_k": segment_ids_k}).items():
        if value is not None:
            raise ValueError(f"{name} needs kv, whose tokens it describes; got kv None")
    check_qkv(qkv)
    check_sequences("cu_seqlens", cu_seqlens, "max_seqlen", max_seqlen, qkv)
    check_rotary(rotary)
    if angles is not None:
        check_angles("angles", angles, "qkv", qkv)
    if segment_ids is not None:
        check_segment_ids("segment_ids", segment_ids, "qkv", qkv)
    refuse_transforms("rotary_attention", qkv, cu_seqlens, angles, segment_ids)
    angles = None if angles is None else angles.detach()
    qkv = qkv.to(computing_dtype(qkv.dtype, qkv.device))
    scale = checked_scale(scale, qkv.shape[3])
    chosen = _choose(backend, qkv, max_seqlen, crosses=False, has_segments=segment_ids is not None)
    packing = Packing(cu_seqlens, max_seqlen, angles, segment_ids, rotary, scale)
    if chosen.composed is not None and chosen.runs_composed(qkv.device):
        return chosen.composed(qkv, packing)
    out, _ = attention(qkv, *packing, chosen.name)
    return out


def _cross_attention(
    q: torch.Tensor,
    kv: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    cu_seqlens_k: torch.Tensor | None,
    max_seqlen_k: int | None,
    angles: torch.Tensor | None,
    angles_k: torch.Tensor | None,
    rotary: str,
    segment_ids: torch.Tensor | None,
    segment_ids_k: torch.Tensor | None,
    scale: float | None,
    backend: str,
) -> torch.Tensor:
    check_q_and_kv(q, kv)
    check_sequences("cu_seqlens", cu_seqlens, "max_seqlen", max_seqlen, q)
    if (cu_seqlens_k is None) != (max_seqlen_k is None):
        raise ValueError("cu_seqlens_k and max_seqlen_k must be given together; got one of them")
    shares_lengths = cu_seqlens_k is None
    if cu_seqlens_k is None or max_seqlen_k is None:
        cu_seqlens_k, max_seqlen_k = cu_seqlens, max_seqlen
        if kv.shape[0] != q.shape[0]:
            raise ValueError(
                f"kv must have qkv's {q.shape[0]} tokens unless cu_seqlens_k says how many belong to each sequence; "
                f"got {kv.shape[0]}"
            )
    check_sequences("cu_seqlens_k", cu_seqlens_k, "max_seqlen_k", max_seqlen_k, q)
    if cu_seqlens_k.shape != cu_seqlens.shape:
        raise ValueError(
            f"cu_seqlens_k must be of as many sequences as cu_seqlens, {cu_seqlens.shape[0] - 1}; got "
            f"{cu_seqlens_k.shape[0] - 1}"
        )
    check_rotary(rotary)
    angles_k = of_keys("angles", angles, angles_k, shares_lengths)
    if angles is not None and angles_k is not None:
        check_angles("angles", angles, "qkv", q)
        check_angles("angles_k", angles_k, "kv", kv)
        if angles.shape[1] != angles_k.shape[1]:
            raise ValueError(f"angles_k must have {angles.shape[1]} columns, as angles; got {angles_k.shape[1]}")
    segment_ids_k = of_keys("segment_ids", segment_ids, segment_ids_k, shares_lengths)
    if segment_ids is not None and segment_ids_k is not None:
        check_segment_ids("segment_ids", segment_ids, "qkv", q)
        check_segment_ids("segment_ids_k", segment_ids_k, "kv", kv)
    refuse_transforms("rotary_attention", q, kv, cu_seqlens, cu_seqlens_k, angles, angles_k, segment_ids, segment_ids_k)
    angles, angles_k = (None if x is None else x.detach() for x in (angles, angles_k))
    q, kv = (x.to(computing_dtype(x.dtype, x.device)) for x in (q, kv))
    check_same_dtype(q, kv)
    scale = checked_scale(scale, q.shape[2])
    longest = max(max_seqlen, max_seqlen_k)
    packing = CrossPacking(
        cu_seqlens, max_seqlen, cu_seqlens_k, max_seqlen_k, angles, angles_k, segment_ids, segment_ids_k, rotary, scale
    )
    slow = slower_for_one_query(q, kv, packing)
    chosen = _choose(backend, q, longest, crosses=True, has_segments=segment_ids is not None, slow_in_native=slow)
    if chosen.cross_composed is not None and chosen.runs_composed(q.device):
        return chosen.cross_composed(q, kv, packing)
    out, _ = cross_attention(q, kv, *packing, chosen.name)
    return out


def _choose(
    backend: str,
    x: torch.Tensor,
    longest: int,
    *,
    crosses: bool,
    has_segments: bool,
    slow_in_native: str | None = None,
) -> AttentionBackend:
    """The back end for a call on `x`'s device and dtype, with keys of other tokens if it `crosses`."""

    def refuse(candidate: AttentionBackend) -> str | None:
        if crosses and (reason := candidate.cross_unavailable()) is not None:
            return reason
        # A named one answers for itself.
        if backend != "auto":
            return None
        if has_segments and not candidate.takes_segments:
            return "segment_ids: it has no such mask"
        if candidate.name == "triton" and not has_segments:
            return slow_in_triton(x.device, x.shape[-1])
        return slow_in_native or slower_than_sdpa(x.dtype, longest) if candidate.name == "native" else None

    return BACKENDS.choose(backend, x.device, x.dtype, refuse)
