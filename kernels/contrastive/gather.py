"""Gathering candidates from all ranks, with gradients, while something else is computed."""

from __future__ import annotations

import torch
import torch.distributed as dist

if dist.is_available():
    # Its functions have the world's process group of the moment they are imported as a default argument, and the first
    # custom operator that runs imports it. Imported after init_process_group it would keep that group, and gloo's
    # threads, beyond destroy_process_group: one of them that frees a tensor while Python ends aborts the process.
    import torch.distributed.nn.functional


class Gathering:
    """The rows of the other ranks on their way here, and their gradients on the way back.

    `send` starts a gather that `receive` waits for. In the backward pass, which runs in the opposite order, `receive`
    starts the sum over ranks and `send` waits for it: what is computed between the two overlaps both ways.
    """

    def __init__(self, counts: list[int], group: dist.ProcessGroup) -> None:
        self.counts, self.group = counts, group
        self.rank, self.longest = dist.get_rank(group), max(counts)
        self.work: dist.Work | None = None

    def send(self, rows: torch.Tensor) -> torch.Tensor:
        """Starts gathering `rows` [counts[rank], dim] and returns what `receive` takes."""
        return _Send.apply(rows, self)

    def receive(self, sent: torch.Tensor) -> torch.Tensor:
        """The rows of all other ranks, in rank order; their gradients are summed over ranks, not averaged."""
        return _Receive.apply(sent, self)

    def wait(self) -> None:
        assert self.work is not None
        self.work.wait()
        self.work = None


class _Send(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: torch.Tensor, gathering: Gathering) -> torch.Tensor:
        ctx.gathering = gathering
        # The collective wants equal shapes: shorter ranks send rows that are cut off again.
        padded = rows.new_zeros(gathering.longest, rows.shape[1])
        padded[: rows.shape[0]] = rows
        everyone = rows.new_empty(len(gathering.counts) * gathering.longest, rows.shape[1])
        gathering.work = dist.all_gather_into_tensor(everyone, padded, group=gathering.group, async_op=True)
        return everyone

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: torch.Tensor):
        gathering = ctx.gathering
        gathering.wait()
        start = gathering.rank * gathering.longest
        return grad[start : start + gathering.counts[gathering.rank]], None


class _Receive(torch.autograd.Function):
    @staticmethod
    def forward(ctx, sent: torch.Tensor, gathering: Gathering) -> torch.Tensor:
        ctx.gathering = gathering
        gathering.wait()
        parts = zip(sent.split(gathering.longest), gathering.counts, strict=True)
        return torch.cat([part[:n] for rank, (part, n) in enumerate(parts) if rank != gathering.rank])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: torch.Tensor):
        gathering = ctx.gathering
        total = grad.new_zeros(len(gathering.counts), gathering.longest, grad.shape[1])
        others = [(rank, n) for rank, n in enumerate(gathering.counts) if rank != gathering.rank]
        for (rank, n), part in zip(others, grad.split([n for _, n in others]), strict=True):
            total[rank, :n] = part
        total = total.flatten(0, 1)
        gathering.work = dist.all_reduce(total, group=gathering.group, async_op=True)
        return total, None


def exchange_counts(counts: tuple[int, ...], device: torch.device, group: dist.ProcessGroup) -> list[list[int]]:
    """For each number given, that number on each rank. The host waits for it."""
    mine = torch.tensor(counts, device=device)
    everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(everyone, mine, group=group)
    return torch.stack(everyone).T.tolist()
