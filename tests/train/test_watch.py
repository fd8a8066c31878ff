"""The watch of a single process, and of ranks that are played; `test_lost_ranks.py` has runs of several processes."""

from __future__ import annotations

import queue
import threading
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from reserve.config import TrainConfig
from reserve.errors import RankLost
from reserve.train.beats import Beat, Process
from reserve.train.board import Board
from reserve.train.distributed import LONGEST_WAIT, Ranks, group_timeout
from reserve.train.judge import Verdict
from reserve.train.watch import Watch, _is_of_communication
from tests.helpers.ranks import free_ports

ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture
def board(monkeypatch):
    """The store of a run of two ranks, of which the tests play the second one."""
    (port,) = free_ports(1)
    server = dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "RANK": 0}.items():
        monkeypatch.setenv(name, str(value))
    # As under torchrun, whose store outlives the ranks.
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    other = Board.from_environment(1, 2, timeout=60.0)
    other.connect()
    yield other
    del server


def other_rank(**changes) -> Beat:
    return Beat(1, Process("far", 71, "another machine", 1), **changes)


def test_phases_count_from_the_start_of_each_step():
    watch = Watch(TrainConfig())
    places = []
    for name, step in [("setting up", None), ("waiting", 5), ("computing", None), ("waiting", 6), ("computing", 6)]:
        watch.phase(name, step=step)
        places.append(watch._beat().place)
    assert places == [(0, 1), (5, 0), (5, 1), (6, 0), (6, 1)]
    watch.phase("evaluating", patient=True)
    assert watch._beat().patient
    assert watch._beat().where == "evaluating at step 6"


@pytest.mark.parametrize("error", [None, ValueError("wrong"), KeyboardInterrupt()])
def test_a_single_process_raises_what_it_raises(error):
    before = threading.active_count()

    def body() -> None:
        with Watch(TrainConfig()) as watch, watch.reporting(ALONE):
            if error is not None:
                raise error

    if error is None:
        body()
    else:
        with pytest.raises(type(error)) as caught:
            body()
        assert caught.value is error
    assert threading.active_count() == before


def test_a_rank_that_reports_its_own_end_is_not_ended(monkeypatch):
    """By its own watch, before it has come to raise its error."""
    ended: list[int] = []
    monkeypatch.setattr(Watch, "_end", lambda self, status: ended.append(status))
    watch = Watch(TrainConfig())
    settle = watch._settle

    def settle_slowly(verdict: Verdict) -> Verdict:
        settled = settle(verdict)
        watch._guard()
        return settled

    monkeypatch.setattr(watch, "_settle", settle_slowly)
    watch._left.set()
    with pytest.raises(KeyboardInterrupt), watch, watch.reporting(ALONE):
        raise KeyboardInterrupt
    assert ended == []


def test_a_process_that_cannot_leave_is_ended(monkeypatch):
    """As where the process group waits for a dead rank while it is destroyed."""
    ended: queue.Queue[int] = queue.Queue()
    monkeypatch.setattr(Watch, "_end", lambda self, status: ended.put(status))
    monkeypatch.setattr("reserve.train.watch.LEAVING", 0.01)
    with Watch(TrainConfig()) as watch:
        with watch.reporting(ALONE):
            pass
        assert ended.get(timeout=600) == 75


def test_a_lost_connection_is_explained_by_what_another_rank_has_posted(board):
    board.post(other_rank())

    def body() -> None:
        board.agree(Verdict("lost", (7,), "rank 7 died"))
        raise RuntimeError("[gloo/transport/tcp/pair.cc:1] Connection closed by peer")

    with pytest.raises(RankLost, match="rank 7 died") as caught, Watch(TrainConfig()) as watch, watch.reporting(ALONE):
        body()
    assert "gloo" in str(caught.value.__cause__)


def test_a_failure_is_posted_for_the_others(board):
    board.post(other_rank())
    with pytest.raises(ValueError, match="wrong"), Watch(TrainConfig()) as watch, watch.reporting(ALONE):
        raise ValueError("wrong")
    verdict = board.agree(None)
    assert verdict is not None
    assert (verdict.kind, verdict.ranks, verdict.status) == ("failed", (0,), 1)
    assert verdict.message.endswith(") failed: wrong")
    assert board.beats()[0].left


def test_the_first_verdict_holds(board):
    first, second = Verdict("lost", (2,), "first"), Verdict("lost", (3,), "second")
    assert board.agree(None) is None
    assert board.agree(first) == first
    assert board.agree(second) == first


def test_a_start_reads_nothing_of_the_one_before(board, monkeypatch):
    board.post(other_rank())
    board.agree(Verdict("lost", (1,), "then"))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    again = Board.from_environment(0, 2, timeout=60.0)
    again.connect()
    assert again.beats() == {}
    assert again.agree(None) is None


def test_a_rank_that_does_not_get_to_its_work_still_reports(board):
    with pytest.raises(OSError, match="no such device"), Watch(TrainConfig()):
        raise OSError("no such device")
    verdict = board.agree(None)
    assert verdict is not None
    assert "no such device" in verdict.message


def test_errors_of_communication_are_told_apart():
    def caused(error: Exception, cause: Exception) -> Exception:
        error.__cause__ = cause
        return error

    closed = RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer")
    assert _is_of_communication(closed)
    assert _is_of_communication(dist.DistBackendError("NCCL error"))
    assert _is_of_communication(caused(ValueError("a checkpoint"), closed))
    assert not _is_of_communication(caused(ValueError("a checkpoint"), OSError("no space left")))
    assert not _is_of_communication(torch.OutOfMemoryError("CUDA out of memory"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank_timeout": 0.5}, r"train.rank_timeout must be at least 1 and finite; got 0.5"),
        ({"rank_timeout": 0.0}, r"train.rank_timeout must be at least 1 and finite; got 0"),
        ({"hang_timeout": 0.5}, r"train.hang_timeout must be 0 or at least 1 and finite; got 0.5"),
        ({"hang_timeout": float("nan")}, r"train.hang_timeout must be 0 or at least 1"),
    ],
)
def test_timeouts_have_a_range(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)


def test_the_watch_decides_before_the_process_group_does():
    for seconds in (1.0, 1800.0, 86400.0):
        assert group_timeout(seconds) > timedelta(seconds=seconds)
    assert group_timeout(0.0) == LONGEST_WAIT
