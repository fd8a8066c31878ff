"""BF16AdamW with parameters sharded over two processes (gloo), against one process that has all."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate

from reserve_kernels import BF16AdamW


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
    settings = {"lr": 1e-2, "bias_correction": True, "decay_to_start": True, "backend": backend}
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


def run_rank(rank: int, world_size: int, address: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error", FutureWarning)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world_size)
    try:
        for backend in ("auto", "reference"):
            check_as_one_process(backend)
        check_placements()
    finally:
        dist.destroy_process_group()


def test_sharded_parameters_are_updated_as_whole_ones(tmp_path: Path) -> None:
    mp.spawn(run_rank, args=(2, f"file://{tmp_path}/rendezvous"), nprocs=2)
