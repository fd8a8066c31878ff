"""Gathering candidates from all ranks, with gradients."""

from __future__ import annotations

import torch
import torch.distributed as dist


class _GatherRows(torch.autograd.Function):
    """All ranks' rows in rank order; the gradient of a rank's rows is the sum of what all ranks have for them."""

    @staticmethod
    def forward(ctx, rows: torch.Tensor, counts: list[int], group: dist.ProcessGroup) -> torch.Tensor:
        ctx.counts, ctx.group = counts, group
        longest = max(counts)
        # The collective wants equal shapes: shorter ranks send rows that are cut off again.
        padded = rows.new_zeros((longest, rows.shape[1]))
        padded[: rows.shape[0]] = rows
        everyone = rows.new_empty((len(counts) * longest, rows.shape[1]))
        dist.all_gather_into_tensor(everyone, padded, group=group)
        return torch.cat([part[:n] for part, n in zip(everyone.split(longest), counts, strict=True)])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: torch.Tensor):
        total = grad.contiguous()
        dist.all_reduce(total, group=ctx.group)
        mine = total.split(ctx.counts)[dist.get_rank(ctx.group)]
        return mine, None, None


def gather_rows(rows: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """[n, dim] on each rank -> [sum of n, dim] on every rank, in rank order; ranks may have different n.

    The gradient is what the sum over ranks of their losses has: it is not divided by the number of ranks.
    """
    count = torch.tensor([rows.shape[0]], device=rows.device)
    counts = [torch.empty_like(count) for _ in range(dist.get_world_size(group))]
    dist.all_gather(counts, count, group=group)
    return _GatherRows.apply(rows, [int(c) for c in counts], group)
