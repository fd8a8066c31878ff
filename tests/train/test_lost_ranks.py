"""Ranks that die, stop, hang or fail: the others end by themselves and say which one it was."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.train.lost_ranks import TROUBLE_AT, die, fail, hang, start_ranks, stop, wait_for

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


@pytest.mark.parametrize("victim", [1, 0])
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
    run, processes = ranks(2, hang, 1, rank_timeout=3600.0, hang_timeout=4.0)
    for status, log in wait_for(run, processes, 0, 1).values():
        assert status == 75
        assert "no progress for 4 s (train.hang_timeout): rank 1 (" in log
        assert f"pid {processes[1].pid}) still waiting for data at step {TROUBLE_AT}; the others wait" in log
    assert "lost_ranks.py" in log  # the stack of the thread that hangs
    assert "in hang" in log


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
