"""Gathers candidates from all ranks, with gradients, while other work runs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist

from reserve_kernels.checks import FLOATING

if dist.is_available():
    # The first custom operator that runs imports this module, whose functions capture the current world group as a
    # default argument. Imported after init_process_group, it would keep that group and gloo's threads alive beyond
    # destroy_process_group, and a thread that frees a tensor during shutdown aborts the process.
    import torch.distributed.nn.functional

    # torch 2.13 renamed these and warns about the names of 2.11.
    _all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    _reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


class Gathering:
    """An asynchronous gather of the other ranks' rows, and the reduction of their gradients.

    `send` starts a gather that `receive` waits for. In the backward pass, which runs in the opposite order, `receive`
    starts the sum over ranks and `send` waits for it. Work between the two overlaps in both passes.
    """

    def __init__(self, counts: list[int], group: dist.ProcessGroup) -> None:
        self.counts, self.group = counts, group
        self.rank, self.longest = dist.get_rank(group), max(counts)
        self.work: dist.Work | None = None
        self.summed: torch.Tensor | None = None

    def send(self, rows: torch.Tensor) -> torch.Tensor:
        """Starts gathering `rows` [counts[rank], dim] and returns what `receive` takes."""
        return _Send.apply(rows, self)

    def receive(self, sent: torch.Tensor) -> torch.Tensor:
        """The rows of all other ranks, in rank order. Gradients are summed over ranks, not averaged."""
        return _Receive.apply(sent, self)

    def wait(self) -> None:
        assert self.work is not None
        self.work.wait()
        self.work = None


class _Send(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: torch.Tensor, gathering: Gathering) -> torch.Tensor:
        ctx.gathering = gathering
        # The collective takes equal shapes: ranks with fewer rows pad, and `receive` drops the padding.
        if rows.shape[0] < gathering.longest:
            rows = torch.cat((rows, rows.new_zeros(gathering.longest - rows.shape[0], rows.shape[1])))
        everyone = rows.new_empty(len(gathering.counts) * gathering.longest, rows.shape[1])
        gathering.work = _all_gather(everyone, rows.contiguous(), group=gathering.group, async_op=True)
        return everyone

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: torch.Tensor):
        # `grad` is what `receive` passed to the sum over ranks; the result is this rank's rows.
        gathering = ctx.gathering
        gathering.wait()
        summed, gathering.summed = gathering.summed, None
        return summed[: gathering.counts[gathering.rank]], None


class _Receive(torch.autograd.Function):
    @staticmethod
    def forward(ctx, sent: torch.Tensor, gathering: Gathering) -> torch.Tensor:
        ctx.gathering = gathering
        gathering.wait()
        counts = gathering.counts
        parts = zip(sent.unflatten(0, (len(counts), gathering.longest)), counts, strict=True)
        return torch.cat([part[:n] for rank, (part, n) in enumerate(parts) if rank != gathering.rank])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: torch.Tensor):
        gathering = ctx.gathering
        parts = grad.new_zeros(len(gathering.counts), gathering.longest, grad.shape[1])
        others = [(rank, n) for rank, n in enumerate(gathering.counts) if rank != gathering.rank]
        for (rank, n), part in zip(others, grad.split([n for _, n in others]), strict=True):
            parts[rank, :n] = part
        gathering.summed = grad.new_empty(parts.shape[1:])
        gathering.work = _reduce_scatter(gathering.summed, parts.flatten(0, 1), group=gathering.group, async_op=True)
        # The graph keeps it alive until `send` has waited.
        return parts.flatten(0, 1), None


def check_member(group: object) -> None:
    """Raises ValueError or TypeError unless `group` is a process group that contains this process."""
    if group == dist.GroupMember.NON_GROUP_MEMBER:
        raise ValueError("group must contain this process; new_group returned a group of other ranks")
    if not isinstance(group, dist.ProcessGroup):
        raise TypeError(f"group must be a torch.distributed.ProcessGroup or None; got {type(group).__name__}")


def exchange_counts(candidates: Sequence[torch.Tensor], group: dist.ProcessGroup) -> list[list[int]]:
    """For each of `candidates` [rows, dim], its number of rows on each rank.

    The hosts know the numbers, and exchange them directly if the group has a backend for CPU tensors, as one made with
    "cpu:gloo,cuda:nccl" does. Otherwise they go through the GPUs, and the host waits for all that these have to do.

    Raises ValueError on every rank if dimensions or dtypes differ between ranks.
    """
    first = candidates[0]
    on_host = "cpu:" in dist.get_backend_config(group)
    mine = torch.tensor(
        [first.shape[1], FLOATING.index(first.dtype), *(len(rows) for rows in candidates)],
        device="cpu" if on_host else first.device,
    )
    everyone = mine.new_empty(dist.get_world_size(group) * len(mine))
    _all_gather(everyone, mine, group=group)
    (dims, dtypes, *counts) = everyone.view(-1, len(mine)).T.tolist()
    kinds = [
        f"[*, {dim}] {str(FLOATING[dtype]).removeprefix('torch.')}" for dim, dtype in zip(dims, dtypes, strict=True)
    ]
    if len(set(kinds)) > 1:
        raise ValueError(f"x must have the same dim and dtype on all ranks of group; got, by rank, {', '.join(kinds)}")
    return counts
