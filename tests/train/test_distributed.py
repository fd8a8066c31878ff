from __future__ import annotations

import gc
import os
import time
from datetime import timedelta

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from reserve.errors import CheckpointError, DamagedCheckpoint
from reserve.train.distributed import joined_ranks, pick_device
from tests.helpers.ranks import check_gloo_threads_ended, free_ports, run_ranks


def test_one_process_stands_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined_ranks("cpu") as ranks:
        assert (ranks.rank, ranks.world_size, ranks.device.type) == (0, 1, "cpu")
        assert ranks.is_first
        assert ranks.any(True)
        assert not ranks.any(False)
        assert ranks.gather("mine") == ["mine"]
        ranks.fail_together(None)
        with pytest.raises(KeyError, match="mine"):
            ranks.fail_together(KeyError("mine"))
        assert torch.equal(ranks.mean(torch.tensor([1.0, 2.0])), torch.tensor([1.0, 2.0]))


def test_ranks_wait_for_a_long_preparation(monkeypatch):
    """The first prepares for hours while the others are at a barrier, whose default limit is half an hour."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    asked = {}
    for name in ("init_process_group", "destroy_process_group"):
        monkeypatch.setattr(f"torch.distributed.{name}", lambda *_, **__: None)
    monkeypatch.setattr("torch.distributed.new_group", lambda **options: asked.update(options))
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 1)
    with joined_ranks("cpu"):
        assert asked["timeout"] >= timedelta(days=7)


def join_late(rank: int, port: int, restarts: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ["TORCHELASTIC_RESTART_COUNT"] = str(restarts)
    # Long enough for the first rank to find the old address of this one, if it looks for it.
    time.sleep(rank * restarts)
    with joined_ranks("cpu") as ranks:
        assert ranks.sum([1.0]) == [2.0]


def test_ranks_that_torchrun_starts_again_join_through_the_same_store():
    """It still holds the addresses of the ranks before."""
    (port,) = free_ports(1)
    store = torch.distributed.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    for restarts in range(2):
        run_ranks(join_late, port, restarts)
    del store


def fail_on_rank_1(rank: int, port: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    with joined_ranks("cpu") as ranks:
        ranks.fail_together(None)
        kinds = (
            (DamagedCheckpoint("a hash"), DamagedCheckpoint),
            (CheckpointError("a file"), CheckpointError),
            (KeyError("a name"), ValueError),
        )
        for error, elsewhere in kinds:
            with pytest.raises(type(error) if rank else elsewhere) as caught:
                ranks.fail_together(error if rank else None)
            assert str(caught.value) == (str(error) if rank else f"{error} (found by rank 1)")
            assert isinstance(caught.value, CheckpointError) == isinstance(error, CheckpointError)


def damage_on_rank_1(rank: int, port: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    with joined_ranks("cpu") as ranks, pytest.raises(DamagedCheckpoint, match="a hash"):
        ranks.fail_together(DamagedCheckpoint("a hash") if rank else CheckpointError("a file"))


def test_ranks_that_find_different_faults_go_on_together():
    run_ranks(damage_on_rank_1, free_ports(1)[0])


def test_an_error_of_one_rank_is_raised_on_every_rank():
    run_ranks(fail_on_rank_1, free_ports(1)[0])


def leave_a_cycle(rank: int, port: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    gc.disable()
    with joined_ranks("cpu"):
        cycle: list[object] = [DistributedDataParallel(nn.Linear(2, 1))]
        cycle.append(cycle)
        del cycle
    check_gloo_threads_ended()


def test_no_wrapped_model_outlives_the_process_group():
    """Its reducer would end the threads of the group at any later time, which can hang or abort the process."""
    run_ranks(leave_a_cycle, free_ports(1)[0])


def test_a_missing_gpu_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="sees no CUDA device"):
        pick_device("cuda")
    assert pick_device("auto").type == "cpu"
