"""What rotary_attention means, in plain PyTorch: exact in float64."""

from __future__ import annotations

from itertools import pairwise

import torch

from reserve_kernels.attention.packing import Packing

ROTATED = 32
"""Head dimensions that rotate; the rest pass through."""


def apply_rotary(x: torch.Tensor, angles: torch.Tensor, rotary: str, *, transpose: bool = False) -> torch.Tensor:
    """Applies the position to q or k (SPEC 5): x [tokens, ..., 64], angles [tokens, 16] -> the shape of x.

    Angle i belongs to the dimensions 2 i and 2 i + 1. "reserve" scales them by sin a - cos a and sin a + cos a;
    "standard" rotates the pair by a. `transpose` applies the transposed map, which takes gradients back.
    """
    return apply_rotary_(x.clone(), angles, rotary, transpose=transpose)


def apply_rotary_(x: torch.Tensor, angles: torch.Tensor, rotary: str, *, transpose: bool = False) -> torch.Tensor:
    """`apply_rotary` in place: one pass over the rotated half, which takes most of the time on a CPU."""
    angles = angles.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    angles = angles.reshape(angles.shape[0], *[1] * (x.dim() - 2), angles.shape[1])
    sin, cos = angles.sin().to(x.dtype), angles.cos().to(x.dtype)
    rotated = x[..., :ROTATED]
    if rotary == "reserve":
        rotated.mul_(torch.stack((sin - cos, sin + cos), dim=-1).flatten(-2))
    else:
        sin = -sin if transpose else sin
        even, odd = rotated[..., 0::2], rotated[..., 1::2]
        rotated.copy_(torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2))
    return x


def rotate_qk(qkv: torch.Tensor, angles: torch.Tensor | None, rotary: str) -> torch.Tensor:
    """qkv [tokens, 3, heads, 64] with the position applied to queries and keys."""
    if angles is None:
        return qkv
    rotated = qkv.clone(memory_format=torch.contiguous_format)
    apply_rotary_(rotated[:, :2], angles, rotary)
    return rotated


def attention_reference(qkv: torch.Tensor, packing: Packing) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention within each sequence and segment id: qkv [tokens, 3, heads, 64] -> (out [tokens, heads, 64], lse).

    `lse` [tokens, heads], float32 at least, is the logsumexp of each row's scores. Everything is computed in the dtype
    of `lse`, since scores of float16 queries overflow, and `out` is rounded once. Differentiable by autograd.
    """
    cu_seqlens, _, angles, segment_ids, rotary, scale = packing
    q, k, v = rotate_qk(qkv.to(_wide(qkv)), angles, rotary).unbind(1)
    # Empty starts, so that no sequences at all give an empty result with a gradient.
    outputs = [v[:0]]
    statistics = [v[:0, :, 0]]
    for start, end in pairwise(cu_seqlens.tolist()):
        scores = _scores(q[start:end], k[start:end], segment_ids, slice(start, end), scale)
        lse = scores.logsumexp(-1)
        outputs.append(torch.einsum("hqk,khd->qhd", (scores - lse[..., None]).exp(), v[start:end]))
        statistics.append(lse.T)
    return torch.cat(outputs).to(qkv.dtype), torch.cat(statistics)


def attention_reference_backward(
    grad: torch.Tensor, qkv: torch.Tensor, _out: torch.Tensor, _lse: torch.Tensor, packing: Packing
) -> torch.Tensor:
    """The gradient of `qkv`, given that of `out` [tokens, heads, 64]. It computes the scores again."""
    cu_seqlens, _, angles, segment_ids, rotary, scale = packing
    rotated, grad = rotate_qk(qkv.to(_wide(qkv)), angles, rotary), grad.to(_wide(qkv))
    grad_qkv = torch.empty_like(rotated, memory_format=torch.contiguous_format)
    for start, end in pairwise(cu_seqlens.tolist()):
        q, k, v = rotated[start:end].unbind(1)
        probabilities = _scores(q, k, segment_ids, slice(start, end), scale).softmax(-1)
        grad_p = torch.einsum("qhd,khd->hqk", grad[start:end], v)
        grad_s = probabilities * (grad_p - (grad_p * probabilities).sum(-1, keepdim=True)) * scale
        grad_qkv[start:end, 0] = torch.einsum("hqk,khd->qhd", grad_s, k)
        grad_qkv[start:end, 1] = torch.einsum("hqk,qhd->khd", grad_s, q)
        grad_qkv[start:end, 2] = torch.einsum("hqk,qhd->khd", probabilities, grad[start:end])
    if angles is not None:
        apply_rotary_(grad_qkv[:, :2], angles, rotary, transpose=True)
    return grad_qkv.to(qkv.dtype)


def _wide(qkv: torch.Tensor) -> torch.dtype:
    return torch.float64 if qkv.dtype == torch.float64 else torch.float32


def _scores(
    q: torch.Tensor, k: torch.Tensor, segment_ids: torch.Tensor | None, part: slice, scale: float
) -> torch.Tensor:
    """The scaled scores of a sequence, the rows `part` of the packed tokens: [heads, queries, keys]."""
    scores = torch.einsum("qhd,khd->hqk", q, k) * scale
    if segment_ids is None:
        return scores
    ids = segment_ids[part]
    return scores.masked_fill(ids[:, None] != ids[None, :], -torch.inf)
