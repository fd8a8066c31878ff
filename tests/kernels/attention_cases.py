"""Random problems of rotary_attention of any head size, and of queries over other tokens' keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from reserve_kernels.attention.packing import CrossPacking
from reserve_kernels.attention.reference import cross_attention_reference
from tests.kernels.attention_plain import plain_cross_attention

HEAD_SIZES = [32, 64, 96, 128]

# Of each head size: one angle, a number that no block of the kernels divides, half of the head, all of it.
ANGLES = [(32, 1), (32, 16), (64, 5), (64, 17), (64, 32), (96, 16), (96, 31), (96, 48), (128, 1), (128, 40), (128, 64)]

# Lengths of queries and of keys: other ones, the same, neither, queries without keys and the other way round.
CROSS_LENGTHS = {
    "apart": ([31, 5, 1, 70], [17, 64, 3, 130]),
    "equal": ([9, 9], [33, 33]),
    "one query each": ([1, 1, 1], [300, 2, 65]),
    "without keys": ([4, 7, 0, 5], [0, 9, 3, 0]),
    "nothing": ([], []),
    "no keys at all": ([3, 2], [0, 0]),
    "no queries at all": ([0, 0], [3, 2]),
}


def starts(lengths: list[int]) -> torch.Tensor:
    """int32 [sequences + 1]"""
    return torch.tensor([0, *lengths]).cumsum(0).int()


# Layouts in which the numbers of a head are not neighbours.
STRIDED = {
    "every second number": lambda x: torch.stack((x, x), dim=-1)[..., 0],
    "tokens last": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
}


def cross_problem(
    lengths: list[int],
    lengths_k: list[int],
    dtype: torch.dtype = torch.float32,
    *,
    heads: int = 2,
    kv_heads: int = 2,
    size: int = 64,
    angles: int = 16,
    segments: bool = False,
    seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]]:
    """Queries, keys and values, the output's gradient, and the other arguments; no position for 0 angles."""
    generator = torch.Generator().manual_seed(seed)
    tokens, tokens_k = sum(lengths), sum(lengths_k)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    q, kv = draw(tokens, heads, size).to(dtype), draw(tokens_k, 2, kv_heads, size).to(dtype)
    grad = draw(tokens, heads, size).to(dtype)
    arguments = {
        "cu_seqlens": starts(lengths),
        "max_seqlen": max([0, *lengths]),
        "cu_seqlens_k": starts(lengths_k),
        "max_seqlen_k": max([0, *lengths_k]),
        "angles": draw(tokens, angles).float() * 3 if angles else None,
        "angles_k": draw(tokens_k, angles).float() * 3 if angles else None,
        "segment_ids": torch.randint(0, 3, (tokens,), generator=generator).int() if segments else None,
        "segment_ids_k": torch.randint(1, 4, (tokens_k,), generator=generator).int() if segments else None,
    }
    return q, kv, grad, arguments


def with_gradients(
    function: Callable[..., torch.Tensor], q: torch.Tensor, kv: torch.Tensor, grad: torch.Tensor
) -> list[torch.Tensor]:
    """The output of `function` of queries and of keys and values, and the gradients of both."""
    # Not clones, which could have other strides.
    leaves = [x.detach().requires_grad_() for x in (q, kv)]
    out = function(*leaves)
    grads = torch.autograd.grad(out, leaves, grad.to(out.dtype), allow_unused=True, materialize_grads=True)
    return [out.detach(), *grads]


def exact_and_plain(
    q: torch.Tensor, kv: torch.Tensor, grad: torch.Tensor, packing: CrossPacking
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Output and gradients in float64, each with what plain PyTorch makes of it in the dtype of q."""
    exact = with_gradients(lambda *x: cross_attention_reference(*x, packing)[0], q.double(), kv.double(), grad)
    plain = with_gradients(lambda *x: plain_cross_attention(*x, packing), q, kv, grad)
    return list(zip(exact, plain, strict=True))
