"""BF16AdamW with parameters sharded over two processes (gloo), against one process that has all."""

from __future__ import annotations

import copy
import gc
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from reserve_kernels import BF16AdamW
from reserve_kernels.adamw.reference import decode_second_moment
from reserve_kernels.adamw.shards import first_element
from tests.helpers.ranks import run_ranks


def make_model() -> torch.nn.Module:
    """Some of its tensors split into two unequal shards, and one process has no part of the last."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Linear(5, 1))


def train(model: torch.nn.Module, optimizer: BF16AdamW, steps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        model(torch.randn(3, 7, generator=generator)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def check_as_one_process(backend: str) -> None:
    settings = {
        "lr": 1e-2,
        "bias_correction": True,
        "decay_to_start": True,
        "backend": backend,
        "rounding": "stochastic",
    }
    whole, sharded = make_model(), make_model()
    fully_shard(sharded, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizers = [BF16AdamW(model.parameters(), **settings) for model in (whole, sharded)]
    train(whole, optimizers[0], 2)
    train(sharded, optimizers[1], 2)
    resumed = BF16AdamW(sharded.parameters(), **settings)
    resumed.load_state_dict(copy.deepcopy(optimizers[1].state_dict()))
    train(whole, optimizers[0], 2)
    train(sharded, resumed, 2)
    for expected, sharded_parameter in zip(whole.parameters(), sharded.parameters(), strict=True):
        torch.testing.assert_close(sharded_parameter.full_tensor(), expected)
        assert resumed.state[sharded_parameter]["v"].placements == sharded_parameter.placements


def check_placements() -> None:
    model = make_model()
    fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = BF16AdamW(model.parameters())
    train(model, optimizer, 1)
    weight = model[0].weight
    weight.grad = torch.zeros_like(weight)
    optimizer.state[weight]["m"] = optimizer.state[weight]["m"].redistribute(placements=[Replicate()])
    with pytest.raises(ValueError, match=r"must have one placement; got .*Replicate"):
        optimizer.step()


def check_stochastic_rounding() -> None:
    """Shards of dimension 0 get the bits of one process; copies of a shard agree; shards of other dimensions step."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    generator = torch.Generator().manual_seed(2)
    start, gradient = torch.randn(7, 6, generator=generator), torch.randn(7, 6, generator=generator)

    def stepped(placement: Replicate | Shard | None) -> tuple[BF16AdamW, torch.nn.Parameter]:
        tensors = (start, gradient)
        if placement is not None:
            tensors = tuple(distribute_tensor(tensor, mesh, [placement]) for tensor in tensors)
        parameter = torch.nn.Parameter(tensors[0])
        optimizer = BF16AdamW([torch.nn.Parameter(start.clone()), parameter], betas=(0.9, 0.999))
        for i in range(1, 4):
            parameter.grad = tensors[1] * i
            optimizer.step()
        return optimizer, parameter

    whole, parameter = stepped(None)
    expected = [whole.state[parameter][name] for name in ("m", "v")]
    for placement in (Shard(0), Replicate(), Shard(1)):
        sharded, parameter = stepped(placement)
        ours = [sharded.state[parameter][name].full_tensor() for name in ("m", "v")]
        for a, b in zip(ours, expected, strict=True):
            assert torch.equal(a, b) == (placement != Shard(1))
        torch.testing.assert_close(ours[0], expected[0], rtol=3 * 2.0**-7, atol=0)  # neighbours, three times
        torch.testing.assert_close(*map(decode_second_moment, (ours[1], expected[1])), rtol=3 * 2.0**-8, atol=0)
        rows, rank = -(-7 // dist.get_world_size()), dist.get_rank()
        columns = 6 // dist.get_world_size()
        first = {Shard(0): min(rank * rows, 7) * 6, Shard(1): rank * columns}.get(placement, 0)
        assert first_element(parameter) == first


def run_rank(rank: int, world_size: int, address: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error", FutureWarning)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world_size)
    try:
        if world_size == 2:
            for backend in ("auto", "reference"):
                check_as_one_process(backend)
            check_placements()
        check_stochastic_rounding()
    finally:
        gc.collect()  # wrapped models, whose threads the group would end while they wait
        dist.destroy_process_group()


@pytest.mark.parametrize("world_size", [2, 3])
def test_sharded_parameters_are_updated_as_whole_ones(tmp_path: Path, world_size: int) -> None:
    run_ranks(run_rank, world_size, f"file://{tmp_path}/rendezvous", world_size=world_size)
