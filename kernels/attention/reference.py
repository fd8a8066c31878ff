"""What rotary_attention means, in plain PyTorch: exact in float64."""

from __future__ import annotations

from itertools import pairwise

import torch

from reserve_kernels.attention.packing import CrossPacking, Packing


def apply_rotary(x: torch.Tensor, angles: torch.Tensor, rotary: str, *, transpose: bool = False) -> torch.Tensor:
    """Applies the position to q or k (SPEC 5): x [tokens, ..., size], angles [tokens, n] -> the shape of x.

    Angle i belongs to the dimensions 2 i and 2 i + 1; those from 2 n on pass through. "reserve" scales them by
    sin a - cos a and sin a + cos a; "standard" rotates the pair by a. `transpose` applies the transposed map, which
    takes gradients back.
    """
    return apply_rotary_(x.clone(), angles, rotary, transpose=transpose)


def apply_rotary_(x: torch.Tensor, angles: torch.Tensor, rotary: str, *, transpose: bool = False) -> torch.Tensor:
    """`apply_rotary` in place: one pass over what rotates, which takes most of the time on a CPU."""
    angles = angles.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    angles = angles.reshape(angles.shape[0], *[1] * (x.dim() - 2), angles.shape[1])
    sin, cos = angles.sin().to(x.dtype), angles.cos().to(x.dtype)
    rotated = x[..., : 2 * angles.shape[-1]]
    if rotary == "reserve":
        rotated.mul_(torch.stack((sin - cos, sin + cos), dim=-1).flatten(-2))
    else:
        sin = -sin if transpose else sin
        even, odd = rotated[..., 0::2], rotated[..., 1::2]
        rotated.copy_(torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2))
    return x


def rotate_qk(qkv: torch.Tensor, angles: torch.Tensor | None, rotary: str) -> torch.Tensor:
    """qkv [tokens, 3, heads, size] with the position applied to queries and keys."""
    if angles is None:
        return qkv
    rotated = qkv.clone(memory_format=torch.contiguous_format)
    apply_rotary_(rotated[:, :2], angles, rotary)
    return rotated


def rotate_apart(
    q: torch.Tensor, kv: torch.Tensor, packing: CrossPacking
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, and keys and values of kv [tokens_k, 2, heads, size], with the position applied."""
    k, v = kv.unbind(1)
    if packing.angles is None or packing.angles_k is None:
        return q, k, v
    return apply_rotary(q, packing.angles, packing.rotary), apply_rotary(k, packing.angles_k, packing.rotary), v


def attention_reference(qkv: torch.Tensor, packing: Packing) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention within each sequence and segment id: qkv [tokens, 3, heads, size] -> (out [tokens, heads, size], lse).

    `lse` [tokens, heads], float32 at least, is the logsumexp of each row's scores. Everything is computed in the dtype
    of `lse`, since scores of float16 queries overflow, and `out` is rounded once. Differentiable by autograd.
    """
    q, k, v = rotate_qk(qkv.to(_wide(qkv)), packing.angles, packing.rotary).unbind(1)
    out, lse = _attend(q, k, v, packing.crossed())
    return out.to(qkv.dtype), lse


def attention_reference_backward(
    grad: torch.Tensor, qkv: torch.Tensor, _out: torch.Tensor, _lse: torch.Tensor, packing: Packing
) -> torch.Tensor:
    """The gradient of `qkv`, given that of `out` [tokens, heads, size]. It computes the scores again."""
    q, k, v = rotate_qk(qkv.to(_wide(qkv)), packing.angles, packing.rotary).unbind(1)
    grad_qkv = torch.stack(_gradients(grad.to(_wide(qkv)), q, k, v, packing.crossed()), dim=1)
    if packing.angles is not None:
        apply_rotary_(grad_qkv[:, :2], packing.angles, packing.rotary, transpose=True)
    return grad_qkv.to(qkv.dtype)


def cross_attention_reference(
    q: torch.Tensor, kv: torch.Tensor, packing: CrossPacking
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same of queries q [tokens, heads, size] over keys and values kv [tokens_k, 2, kv_heads, size].

    A query without keys gives 0, and minus infinity in `lse`.
    """
    out, lse = _attend(*rotate_apart(q.to(_wide(q)), kv.to(_wide(q)), packing), packing)
    return out.to(q.dtype), lse


def cross_attention_reference_backward(
    grad: torch.Tensor,
    q: torch.Tensor,
    kv: torch.Tensor,
    _out: torch.Tensor,
    _lse: torch.Tensor,
    packing: CrossPacking,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of `q` and `kv`, given that of `out`. It computes the scores again."""
    wide = _wide(q)
    grad_q, grad_k, grad_v = _gradients(grad.to(wide), *rotate_apart(q.to(wide), kv.to(wide), packing), packing)
    if packing.angles is not None and packing.angles_k is not None:
        apply_rotary_(grad_q, packing.angles, packing.rotary, transpose=True)
        apply_rotary_(grad_k, packing.angles_k, packing.rotary, transpose=True)
    return grad_q.to(q.dtype), torch.stack((grad_k, grad_v), dim=1).to(q.dtype)


def sequences(packing: CrossPacking) -> list[tuple[slice, slice]]:
    """The rows of each sequence's queries and of its keys."""
    of_queries, of_keys = (
        [slice(*ends) for ends in pairwise(starts.tolist())] for starts in (packing.cu_seqlens, packing.cu_seqlens_k)
    )
    return list(zip(of_queries, of_keys, strict=True))


def for_each_head(kv: torch.Tensor, heads: int) -> torch.Tensor:
    """Keys or values [tokens, kv_heads, size] for each of `heads` heads of queries, a multiple of kv_heads."""
    return kv if kv.shape[1] == heads else kv.repeat_interleave(heads // kv.shape[1], dim=1)


def over_groups(grad: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """Sums gradients [tokens, heads, size] over the heads that share keys: [tokens, kv_heads, size]."""
    return grad if grad.shape[1] == kv_heads else grad.unflatten(1, (kv_heads, -1)).sum(2)


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packing: CrossPacking
) -> tuple[torch.Tensor, torch.Tensor]:
    k, v = for_each_head(k, q.shape[1]), for_each_head(v, q.shape[1])
    # Empty starts, so that no sequences at all give an empty result with a gradient.
    outputs = [v[:0]]
    statistics = [v[:0, :, 0]]
    for rows, rows_k in sequences(packing):
        scores = _scores(q[rows], k[rows_k], rows, rows_k, packing)
        lse = scores.logsumexp(-1)
        # Where all keys are masked, the difference of two infinities would be NaN.
        subtracted = lse if packing.segment_ids is None else lse.masked_fill(lse == -torch.inf, 0)
        outputs.append(torch.einsum("hqk,khd->qhd", (scores - subtracted[..., None]).exp(), v[rows_k]))
        statistics.append(lse.T)
    return torch.cat(outputs), torch.cat(statistics)


def _gradients(
    grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packing: CrossPacking
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradients of rotated queries and keys, and of values."""
    kv_heads = k.shape[1]
    k, v = for_each_head(k, q.shape[1]), for_each_head(v, q.shape[1])
    grads = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v)]
    for rows, rows_k in sequences(packing):
        scores = _scores(q[rows], k[rows_k], rows, rows_k, packing)
        probabilities = scores.softmax(-1)
        if packing.segment_ids is not None:
            probabilities = probabilities.masked_fill((scores == -torch.inf).all(-1, keepdim=True), 0)
        grad_p = torch.einsum("qhd,khd->hqk", grad[rows], v[rows_k])
        grad_s = probabilities * (grad_p - (grad_p * probabilities).sum(-1, keepdim=True)) * packing.scale
        grads[0][rows] = torch.einsum("hqk,khd->qhd", grad_s, k[rows_k])
        grads[1][rows_k] = torch.einsum("hqk,qhd->khd", grad_s, q[rows])
        grads[2][rows_k] = torch.einsum("hqk,qhd->khd", probabilities, grad[rows])
    return grads[0], over_groups(grads[1], kv_heads), over_groups(grads[2], kv_heads)


def _wide(x: torch.Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _scores(q: torch.Tensor, k: torch.Tensor, rows: slice, rows_k: slice, packing: CrossPacking) -> torch.Tensor:
    """The scaled scores of a sequence, the rows `rows` and `rows_k` of the packed tokens: [heads, queries, keys]."""
    scores = torch.einsum("qhd,khd->hqk", q, k) * packing.scale
    if packing.segment_ids is None or packing.segment_ids_k is None:
        return scores
    return scores.masked_fill(packing.segment_ids[rows, None] != packing.segment_ids_k[rows_k], -torch.inf)
