"""contrastive_loss over several processes (gloo) against one process with all pairs."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.distributed as dist

from reserve_kernels import contrastive_loss
from tests.helpers.ranks import check_gloo_threads_ended, run_ranks
from tests.kernels.contrastive_cases import make_inputs

NAMES = ("x", "y", "x_extra", "y_extra")
CASES = {
    "even": ([9, 9], [4, 4]),
    "one has none": ([7, 0], [5, 3]),
    "one pair, no extras": ([1, 6], [0, 0]),
    "four, uneven": ([5, 0, 11, 2], [1, 8, 0, 3]),
    "none at all": ([0, 0], [0, 0]),
    "one rank": ([8], [3]),
}


def shares(pairs: list[int], extras: list[int]) -> list[dict[str, torch.Tensor]]:
    """Each rank's part of the concatenated batch."""
    whole = make_inputs(sum(pairs), 2 * sum(extras), 32, seed=3)
    counts = {"x": pairs, "y": pairs, "x_extra": extras, "y_extra": [2 * n for n in extras]}
    parts = {name: whole[name].split(counts[name]) for name in NAMES}
    return [{name: parts[name][rank].clone() for name in NAMES} for rank in range(len(pairs))]


def rank_results(inputs, group) -> list[torch.Tensor]:
    """Losses of the pairs, the mean loss, and gradients of the sum of the pairs' losses."""
    leaves = {k: v.requires_grad_() for k, v in inputs.items()}
    log_scale = torch.tensor(1.3, requires_grad=True)
    out = contrastive_loss(**leaves, log_scale=log_scale, group=group)
    total = out.x_to_y.sum() + out.y_to_x.sum()
    grads = torch.autograd.grad(total, [*leaves.values(), log_scale])
    return [t.detach() for t in (out.x_to_y, out.y_to_x, out.loss, *grads)]


def check_one_direction_alone(rank: int) -> None:
    """Only x's losses: the backward pass gathers gradients of y's side alone, on every rank."""
    parts = shares([3, 4], [2, 0])
    whole = {name: torch.cat([part[name] for part in parts]).requires_grad_() for name in NAMES}
    mine = {name: parts[rank][name].requires_grad_() for name in NAMES}
    for inputs, group in ((whole, None), (mine, dist.group.WORLD)):
        contrastive_loss(**inputs, log_scale=1.3, group=group).x_to_y.sum().backward()
    expected = whole["y"].grad.split([3, 4])[rank]
    torch.testing.assert_close(mine["y"].grad, expected, rtol=1e-6, atol=1e-6)


def check_unlike_ranks(rank: int) -> None:
    """If one rank has another dimension, all ranks raise an error and none hangs."""
    x = torch.randn(3, 16 + rank)
    message = r"x must have the same dim and dtype on all ranks of group; got, by rank, \[\*, 16\] float32, \[\*, 17\]"
    with pytest.raises(ValueError, match=message):
        contrastive_loss(x, x, 1.0, group=dist.group.WORLD)


def run_rank(rank: int, world_size: int, address: str, folder: str) -> None:
    torch.set_num_threads(1)
    # The collectives were renamed; their old names warn.
    warnings.simplefilter("error", FutureWarning)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world_size)
    try:
        for name, (pairs, extras) in CASES.items():
            if len(pairs) == world_size:
                results = rank_results(shares(pairs, extras)[rank], dist.group.WORLD)
                torch.save(results, f"{folder}/{name} {rank}.pt")
        if world_size == 2:
            check_one_direction_alone(rank)
            check_unlike_ranks(rank)
    finally:
        dist.destroy_process_group()
    check_gloo_threads_ended()


@pytest.mark.parametrize("world_size", [1, 2, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_agree_with_one_process(tmp_path, world_size):
    address = f"file://{tmp_path}/rendezvous"
    run_ranks(run_rank, world_size, address, str(tmp_path), world_size=world_size)
    for name, (pairs, extras) in CASES.items():
        if len(pairs) != world_size:
            continue
        ranks = [torch.load(tmp_path / f"{name} {rank}.pt") for rank in range(world_size)]
        parts = shares(pairs, extras)
        whole = {key: torch.cat([part[key] for part in parts]) for key in NAMES}
        x_to_y, y_to_x, loss, *grads, of_log_scale = rank_results(whole, None)
        joined = [torch.cat(column) for column in zip(*[(r[0], r[1], *r[3:7]) for r in ranks], strict=True)]
        for out, truth in zip(joined, [x_to_y, y_to_x, *grads], strict=True):
            torch.testing.assert_close(out, truth, rtol=1e-6, atol=1e-6)
        # Not divided by the number of ranks: each has its share of the gradient of the sum of all losses.
        torch.testing.assert_close(sum(r[7] for r in ranks), of_log_scale, rtol=1e-6, atol=1e-6)
        if len(set(pairs)) == 1:
            torch.testing.assert_close(sum(r[2] for r in ranks) / world_size, loss, rtol=1e-6, atol=1e-6)
