"""Ranks that die, stop, hang or fail: the others end by themselves and say which one it was."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reserve.train.metrics import read_metrics
from tests.train.compare_runs import losses_of
from tests.train.lost_ranks import STEPS, TROUBLE_AT, die, fail, hang, jump, start_ranks, stop, wait_for

pytestmark = pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="finds dead processes in /proc")

NEVER = {"rank_timeout": 3600.0, "hang_timeout": 0.0}
"""Timeouts that no test waits for."""


@pytest.fixture
def ranks(tmp_path):
    """Starts ranks and leaves none running."""
    started = []

    def start(world_size, trouble, at, **settings):
        started.extend(start_ranks(tmp_path / "run", world_size, trouble, at, **settings))
        return tmp_path / "run", started

    yield start
    for process in started:
        process.kill()
        process.join()


@pytest.mark.parametrize(("world_size", "victim"), [(2, 1), (2, 0), (3, 1)])
def test_a_rank_that_is_killed_is_named_at_once(ranks, world_size, victim):
    """The first one hosts the store."""
    run, processes = ranks(world_size, die, victim, **NEVER)
    others = [rank for rank in range(world_size) if rank != victim]
    ended = wait_for(run, processes, *others)
    for status, log in ended.values():
        assert status == 75
        assert f"rank {victim} (" in log
        assert f"pid {processes[victim].pid}) died; last seen" in log


@pytest.mark.parametrize("victim", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_rank_that_is_stopped_is_named_after_its_timeout(ranks, victim):
    run, processes = ranks(2, stop, victim, rank_timeout=4.0, hang_timeout=0.0)
    ((status, log),) = wait_for(run, processes, 1 - victim).values()
    assert status == 75
    assert f"rank {victim} (" in log
    assert f"pid {processes[victim].pid})" in log
    # And it ends by itself when it goes on.
    os.kill(processes[victim].pid, signal.SIGCONT)
    ((status, log),) = wait_for(run, processes, victim).values()
    assert status == 75


def test_a_rank_that_hangs_is_named_with_its_phase(ranks):
    run, processes = ranks(2, hang, 1, rank_timeout=3600.0, hang_timeout=3.0)
    for status, log in wait_for(run, processes, 0, 1).values():
        assert status == 75
        assert "no progress for 3 s (train.hang_timeout): rank 1 (" in log
        assert f"pid {processes[1].pid}) still waiting for data at step {TROUBLE_AT}; the others wait" in log
    assert "lost_ranks.py" in log  # the stack of the thread that hangs
    assert "in hang" in log


def test_a_single_process_that_hangs_ends_too(ranks):
    run, processes = ranks(1, hang, 0, rank_timeout=3600.0, hang_timeout=3.0)
    ((status, log),) = wait_for(run, processes, 0).values()
    assert status == 75
    assert f"pid {processes[0].pid}) still waiting for data at step {TROUBLE_AT}" in log
    assert "in hang" in log


@pytest.mark.slow
def test_a_loading_process_that_hangs_is_ended_with_its_rank(ranks):
    run, processes = ranks(1, hang, 0, rank_timeout=3600.0, hang_timeout=10.0, num_workers=1)
    ((status, log),) = wait_for(run, processes, 0).values()
    assert status == 75
    assert "still waiting for data at step" in log
    loader = int(re.search(r"process (\d+) hangs", log)[1])
    assert loader != processes[0].pid
    assert not Path(f"/proc/{loader}").exists()


def test_a_clock_that_jumps_is_no_trouble(ranks):
    run, processes = ranks(2, jump, 1, rank_timeout=60.0, hang_timeout=60.0)
    assert [status for status, _ in wait_for(run, processes, 0, 1).values()] == [0, 0]


@pytest.mark.parametrize("victim", [1, 0])
def test_what_a_rank_fails_with_is_said_by_the_others(ranks, victim):
    run, processes = ranks(2, fail, victim, **NEVER)
    ended = wait_for(run, processes, 0, 1)
    assert [status for status, _ in ended.values()] == [1, 1]
    _, log = ended[1 - victim]
    assert f"RuntimeError: rank {victim} (" in log
    assert f"pid {processes[victim].pid}) failed: the disk is on fire" in log
    _, log = ended[victim]
    assert "ValueError: the disk is on fire" in log
    assert "RuntimeError" not in log


def torchrun(run: Path, victim: int) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=2"]
    command += ["-m", "tests.train.lost_ranks", str(run), str(victim)]
    done = subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("died; last seen" in done.stderr) == (victim >= 0)


@pytest.mark.slow
def test_torchrun_restarts_a_run_that_lost_a_rank(tmp_path):
    """With the losses of a run that lost none: it goes on from its last checkpoint."""
    for name, victim in (("whole", -1), ("killed", 1)):
        torchrun(tmp_path / name, victim)
    whole, killed = (
        [losses_of(line) for line in read_metrics(tmp_path / name / "metrics.jsonl")] for name in ("whole", "killed")
    )
    assert [line["step"] for line in killed] == list(range(1, STEPS + 1))
    assert killed == whole
