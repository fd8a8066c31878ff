"""contrastive_loss of plain tensors in one process, as one function of autograd.

It computes what the op of ops.py and the operations that merge its results do. They are some twenty calls of PyTorch's
dispatcher, which take as long as the products of 100 pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from reserve_kernels.contrastive.ops import forward, gradients
from reserve_kernels.contrastive.reference import STANDARD, Scaling


class Part(NamedTuple):
    """The logits of two of the call's tensors, by their index. With `both` they are x and y."""

    a: int
    b: int
    both: bool
    backend: str
    scaling: Scaling = STANDARD


class Losses(torch.autograd.Function):
    """(log_scale, parts, x, y, further candidates …) -> loss, x_to_y, y_to_x, as `ContrastiveLoss` has them."""

    @staticmethod
    def forward(ctx, log_scale: torch.Tensor, parts: list[Part], *vectors: torch.Tensor):
        lse: list[torch.Tensor] = []
        stored = []
        for part in parts:
            a, b = vectors[part.a], vectors[part.b]
            rows, columns, diagonal, kept = forward(a, b, log_scale, part.both, part.backend, *part.scaling)
            stored.append(kept)
            if part.both:
                lse, positive = [rows, columns], diagonal
            else:
                lse[part.a] = torch.logaddexp(lse[part.a], rows)
        x_to_y, y_to_x = lse[0] - positive, lse[1] - positive
        ctx.parts, ctx.count = parts, 2 * max(x_to_y.shape[0], 1)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(log_scale, *lse, *vectors, *stored)
        return (x_to_y + y_to_x).sum().div_(ctx.count), x_to_y, y_to_x

    @staticmethod
    def backward(ctx, of_loss, of_x_to_y, of_y_to_x):
        log_scale, x_lse, y_lse, *rest = ctx.saved_tensors
        vectors, stored = rest[: -len(ctx.parts)], rest[-len(ctx.parts) :]
        lse, none = (x_lse, y_lse), x_lse.new_empty(0)
        mean = None if of_loss is None else (of_loss / ctx.count).expand(x_lse.shape)
        by_side = [_sum(mean, of_x_to_y, x_lse), _sum(mean, of_y_to_x, x_lse)]
        of_scale_wanted, _, *wanted = ctx.needs_input_grad
        totals: list[torch.Tensor | None] = [None] * len(vectors)
        of_scale = None
        for part, kept in zip(ctx.parts, stored, strict=True):
            a, b = part.a, part.b
            if not (of_scale_wanted or wanted[a] or wanted[b]):
                continue
            of_three = (*by_side, -(by_side[0] + by_side[1])) if part.both else (by_side[a], none, none)
            # The softmax over all candidates, through their common logsumexp.
            statistics = (lse[a], lse[b] if part.both else none)
            saved = (vectors[a], vectors[b], log_scale, *statistics, kept)
            grad_a, grad_b, of_part = gradients(*of_three, *saved, part.both, part.backend, *part.scaling)
            for place, grad in ((a, grad_a), (b, grad_b)):
                if wanted[place]:
                    totals[place] = _accumulated(totals[place], grad)
            if of_scale_wanted:
                of_scale = _accumulated(of_scale, of_part)
        return of_scale, None, *totals


def _sum(mean: torch.Tensor | None, other: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    """The sum of two gradients, either of which may be None."""
    if mean is None or other is None:
        found = other if mean is None else mean
        # The back ends read memory: a lazy negation has to be carried out.
        return torch.zeros_like(like) if found is None else found.resolve_neg().contiguous()
    return mean + other


def _accumulated(total: torch.Tensor | None, grad: torch.Tensor) -> torch.Tensor:
    if total is None:
        return grad
    return total + grad
