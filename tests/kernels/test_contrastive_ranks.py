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
    "three, uneven": ([4, 0, 6], [2, 3, 0]),
    "three, even": ([5, 5, 5], [0, 0, 0]),
    "four, uneven": ([5, 0, 11, 2], [1, 8, 0, 3]),
    "none at all": ([0, 0], [0, 0]),
    "one rank": ([8], [3]),
}

WAYS = {
    "gathered": {},
    "ring": {"exchange": "ring"},
    "ring, vectors as they are": {"exchange": "ring", "normalize": False, "max_scale": None},
    "gathered, vectors as they are": {"normalize": False, "max_scale": None},
    "sigmoid": {"kind": "sigmoid", "bias": -1.5},
    "sigmoid, ring": {"kind": "sigmoid", "exchange": "ring"},
}


def shares(pairs: list[int], extras: list[int]) -> list[dict[str, torch.Tensor]]:
    """Each rank's part of the concatenated batch."""
    whole = make_inputs(sum(pairs), 2 * sum(extras), 32, seed=3)
    counts = {"x": pairs, "y": pairs, "x_extra": extras, "y_extra": [2 * n for n in extras]}
    parts = {name: whole[name].split(counts[name]) for name in NAMES}
    return [{name: parts[name][rank].clone() for name in NAMES} for rank in range(len(pairs))]


def rank_results(inputs, group, first=0, dtype=torch.float32, **arguments) -> list[torch.Tensor]:
    """Losses of the pairs, the mean loss, and gradients of a sum in which every pair has another weight.

    `first`: the number of pairs of the ranks before.
    """
    leaves = {k: v.to(dtype).requires_grad_() for k, v in inputs.items()}
    # Of vectors as they are, logits of some hundred would leave nothing but the largest.
    log_scale = torch.tensor(1.3 if arguments.get("normalize", True) else -3.0, requires_grad=True)
    scalars = {"log_scale": log_scale}
    if "bias" in arguments:
        scalars["bias"] = torch.tensor(arguments["bias"], requires_grad=True)
    out = contrastive_loss(**(arguments | leaves | scalars), group=group)
    count = len(out.x_to_y)
    weights = torch.linspace(0.5, 1.5, 50)[first : first + count]
    total = (weights * out.x_to_y).sum() + (weights.square() * out.y_to_x).sum() + count * out.loss
    grads = torch.autograd.grad(total, [*leaves.values(), *scalars.values()])
    return [t.detach() for t in (out.x_to_y, out.y_to_x, out.loss, *grads)]


def check_one_direction_alone(rank: int, **arguments) -> None:
    """Only x's losses: the backward pass gathers gradients of y's side alone, on every rank."""
    parts = shares([3, 4], [2, 0])
    whole = {name: torch.cat([part[name] for part in parts]).requires_grad_() for name in NAMES}
    mine = {name: parts[rank][name].requires_grad_() for name in NAMES}
    for inputs, group in ((whole, None), (mine, dist.group.WORLD)):
        contrastive_loss(**inputs, log_scale=1.3, group=group, **arguments).x_to_y.sum().backward()
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
                for way, arguments in WAYS.items():
                    inputs, first = shares(pairs, extras)[rank], sum(pairs[:rank])
                    results = rank_results(inputs, dist.group.WORLD, first, **arguments)
                    torch.save(results, f"{folder}/{name} {way} {rank}.pt")
        if world_size == 2:
            for arguments in WAYS.values():
                if arguments.get("normalize", True):
                    check_one_direction_alone(rank, **arguments)
            check_unlike_ranks(rank)
    finally:
        dist.destroy_process_group()
    check_gloo_threads_ended()


@pytest.mark.parametrize("world_size", [1, 2, 3, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_agree_with_one_process(tmp_path, world_size):
    address = f"file://{tmp_path}/rendezvous"
    run_ranks(run_rank, world_size, address, str(tmp_path), world_size=world_size)
    for name, (pairs, extras) in CASES.items():
        if len(pairs) == world_size:
            for way, arguments in WAYS.items():
                ranks = [torch.load(tmp_path / f"{name} {way} {rank}.pt") for rank in range(world_size)]
                check_ranks(ranks, shares(pairs, extras), arguments)


def check_ranks(ranks: list[list[torch.Tensor]], parts: list[dict[str, torch.Tensor]], arguments) -> None:
    whole = {key: torch.cat([part[key] for part in parts]) for key in NAMES}
    x_to_y, y_to_x, loss, *grads = rank_results(whole, None, **arguments)
    vectors, scalars = grads[:4], grads[4:]
    joined = [torch.cat(column) for column in zip(*[(r[0], r[1], *r[3:7]) for r in ranks], strict=True)]
    for out, truth in zip(joined, [x_to_y, y_to_x, *vectors], strict=True):
        torch.testing.assert_close(out, truth, rtol=2e-6, atol=2e-6)
    # Not divided by the number of ranks: each has its share of the gradient of the sum of all losses.
    for place, truth in enumerate(scalars, 7):
        torch.testing.assert_close(sum(r[place] for r in ranks), truth, rtol=2e-6, atol=2e-6)
    if len({len(part["x"]) for part in parts}) == 1:
        torch.testing.assert_close(sum(r[2] for r in ranks) / len(ranks), loss, rtol=1e-6, atol=1e-6)
