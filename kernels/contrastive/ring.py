"""contrastive_loss over several ranks, whose vectors pass round a ring: those of two others are in memory at a time.

A rank keeps its x. Every rank's y goes once round, and collects the sums of its columns on the way home. In the
backward pass it goes round again with what the columns need, and collects its gradient. So each block of logits is
computed once for both directions, where gathering ranks compute it once for each.

What travels is scaled already, and gradients are those of scaled vectors, in the statistics' dtype: parts of ranks are
added before they are rounded to half precision.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist

from reserve_kernels.contrastive.blocks import passes_for
from reserve_kernels.contrastive.gather import exchange_counts
from reserve_kernels.contrastive.reference import Scaling
from reserve_kernels.contrastive.turns import SigmoidTurns, SoftmaxTurns, Turns
from reserve_kernels.precision import autocast_off

VECTORS, STATISTICS, COLLECTED = range(3)
"""Tags of messages: their kinds are under way at the same time."""


class Ring:
    """The order of the ranks of `group`, and how many rows of y and y_extra each has."""

    def __init__(self, group: dist.ProcessGroup, pairs: list[int], extras: list[int]) -> None:
        self.group, self.pairs, self.extras = group, pairs, extras
        self.size, self.rank = len(pairs), dist.get_rank(group)
        ranks = [dist.get_global_rank(group, rank % self.size) for rank in (self.rank - 1, self.rank + 1)]
        self.left, self.right = ranks

    def source(self, turn: int) -> int:
        """The rank whose y is here at a turn: this rank's own first, then that of the rank to the left …"""
        return (self.rank - turn) % self.size

    def candidates(self, rank: int) -> int:
        """The number of rows of y and y_extra of a rank."""
        return self.pairs[rank] + self.extras[rank]

    def shift(self, sent: torch.Tensor, shape: tuple[int, ...], tag: int) -> Arriving:
        """Starts sending to the right and receiving a tensor of `shape` from the left."""
        sent, received = sent.contiguous(), sent.new_empty(shape)
        messages = [
            dist.P2POp(run, tensor, peer, self.group, tag)
            for run, tensor, peer in ((dist.isend, sent, self.right), (dist.irecv, received, self.left))
            if tensor.numel()
        ]
        # `sent` stays in memory until it is through.
        return Arriving(sent, received, dist.batch_isend_irecv(messages) if messages else [])


class Arriving(NamedTuple):
    """A shift under way."""

    sent: torch.Tensor
    received: torch.Tensor
    works: list[dist.Work]

    def wait(self) -> torch.Tensor:
        for work in self.works:
            work.wait()
        return self.received


def ring_losses(
    x: torch.Tensor,
    y: torch.Tensor,
    x_extra: torch.Tensor | None,
    y_extra: torch.Tensor | None,
    log_scale: torch.Tensor,
    bias: torch.Tensor | None,
    scaling: Scaling,
    group: dist.ProcessGroup,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The loss, and those of each x and each y; of the sigmoid if there is a `bias`, otherwise of the softmax."""
    x_extra, y_extra = (x.new_empty(0, x.shape[1]) if extra is None else extra for extra in (x_extra, y_extra))
    ring = Ring(group, *exchange_counts([y, y_extra], group))
    return _RingLosses.apply(ring, scaling, log_scale, bias, x, y, x_extra, y_extra)


class _RingLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx, ring: Ring, scaling: Scaling, log_scale: torch.Tensor, bias: torch.Tensor | None, *sides):
        with autocast_off(log_scale.device):
            turns = _turns(sides, log_scale, bias, scaling)
            collected = _collect_sums(ring, turns, _travelling(sides, log_scale, scaling))
            losses, saved = turns.losses(collected)
        ctx.ring, ctx.scaling, ctx.count = ring, scaling, len(sides)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(log_scale, bias, *sides, *saved)
        return losses

    @staticmethod
    def backward(ctx, *of_losses):
        if torch.is_grad_enabled():
            raise RuntimeError("contrastive_loss has no double backward: round a ring, not with create_graph=True")
        log_scale, bias, *rest = ctx.saved_tensors
        sides, saved = rest[: ctx.count], rest[ctx.count :]
        with autocast_off(log_scale.device):
            turns = _turns(sides, log_scale, bias, ctx.scaling)
            statistics = turns.start_backward(of_losses, saved)
            of_candidates = _collect_gradients(ctx.ring, turns, _travelling(sides, log_scale, ctx.scaling), statistics)
            of_y, of_y_extra = of_candidates.split([len(sides[1]), len(sides[3])])
            passes, shares, grads = passes_for(sides[0], ctx.scaling), [], []
            for side, grad in zip(sides, (turns.grad_x, of_y, turns.grad_extra, of_y_extra), strict=True):
                out = torch.empty_like(side, memory_format=torch.contiguous_format)
                shares.append(log_scale.new_empty(len(side)))
                passes.scale_backward(grad, side, log_scale, out, shares[-1])
                grads.append(out)
            of_scale = torch.cat(shares).sum(dtype=torch.float64).to(log_scale.dtype)
        return None, None, of_scale, turns.of_bias(), *grads


def _scaled(rows: torch.Tensor, log_scale: torch.Tensor, scaling: Scaling) -> torch.Tensor:
    """Scaled rows in their own dtype, which they are rounded to."""
    out = torch.empty_like(rows, memory_format=torch.contiguous_format)
    passes_for(rows, scaling).scale(rows, log_scale, out)
    return out


def _travelling(sides: tuple[torch.Tensor, ...], log_scale: torch.Tensor, scaling: Scaling) -> torch.Tensor:
    """y and y_extra, scaled."""
    return _scaled(torch.cat((sides[1], sides[3])), log_scale, scaling)


def _turns(
    sides: tuple[torch.Tensor, ...], log_scale: torch.Tensor, bias: torch.Tensor | None, scaling: Scaling
) -> Turns:
    x, extra = (_scaled(sides[place], log_scale, scaling) for place in (0, 2))
    if bias is None:
        return SoftmaxTurns(x, extra, log_scale, scaling)
    return SigmoidTurns(x, extra, log_scale, bias)


def _collect_sums(ring: Ring, turns: Turns, vectors: torch.Tensor) -> torch.Tensor:
    """What this rank's y collects of its columns."""
    arriving: Arriving | None = None
    for turn in range(ring.size):
        here, coming = ring.source(turn), ring.source(turn + 1)
        following = None
        if turn + 1 < ring.size:
            following = ring.shift(vectors, (ring.candidates(coming), vectors.shape[1]), VECTORS)
        collected = turns.sums(vectors, ring.pairs[here], turn == 0)
        if arriving is not None:
            collected = turns.merged(arriving.wait(), collected)
        arriving = ring.shift(collected, (len(collected), ring.pairs[coming]), COLLECTED)
        if following is not None:
            vectors = following.wait()
    assert arriving is not None
    return arriving.wait()


def _collect_gradients(ring: Ring, turns: Turns, vectors: torch.Tensor, statistics: torch.Tensor) -> torch.Tensor:
    """The gradient of this rank's scaled y and y_extra."""
    arriving: Arriving | None = None
    for turn in range(ring.size):
        here, coming = ring.source(turn), ring.source(turn + 1)
        shape, following = (ring.candidates(coming), vectors.shape[1]), None
        if turn + 1 < ring.size:
            following = (
                ring.shift(vectors, shape, VECTORS),
                ring.shift(statistics, (len(statistics), ring.pairs[coming]), STATISTICS),
            )
        collected = turns.gradients(vectors, ring.pairs[here], turn == 0, statistics)
        if arriving is not None:
            collected += arriving.wait()
        arriving = ring.shift(collected, shape, COLLECTED)
        # What went to the right is not needed here any longer.
        del collected
        if following is not None:
            vectors, statistics = (each.wait() for each in following)
    assert arriving is not None
    return arriving.wait()
