"""Processes that load batches, and what becomes of them when they die."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from reserve.data.loading_processes import MOST_DEATHS, DeathLog, LoadingProcesses
from tests.helpers.worker_functions import DiesAtTheStart, raise_unpicklable, return_unpicklable, work


class Started:
    """Starts processes and ends them."""

    def __init__(self) -> None:
        self.all: list[LoadingProcesses] = []

    def __call__(self, function, count: int = 1, deaths: DeathLog | None = None) -> LoadingProcesses:
        self.all.append(LoadingProcesses(function, count, deaths))
        return self.all[-1]


@pytest.fixture
def start() -> Iterator[Started]:
    started = Started()
    yield started
    for processes in started.all:
        processes.close()


def kill(processes: LoadingProcesses, number: int, with_signal: int = signal.SIGKILL) -> None:
    """Kills a process, and returns when it is dead."""
    process = processes._workers[number].process
    os.kill(process.pid, with_signal)
    process.join()


def has_ended(pid: int) -> bool:
    """Whether it ends: its parent may have to be waited for."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(wait([descriptor], 60))
    finally:
        os.close(descriptor)


def test_results_come_in_order_from_processes_that_stay(start):
    processes = start(work, 3)
    pids = processes.pids
    for item in range(7):
        processes.request(item)
    assert processes.pending == 7
    assert [processes.receive() for _ in range(7)] == [0, 2, 4, 6, 8, 10, 12]
    for _ in range(9):
        processes.request("pid")
    # The eighth item goes to the second process.
    assert [processes.receive() for _ in range(9)] == [pids[number % 3] for number in range(1, 10)]
    assert processes.pending == 0


def test_a_result_is_ready_when_it_can_be_received(start):
    processes = start(work)
    processes.request("hang")
    assert not processes.ready()
    kill(processes, 0)
    assert processes.ready()


@pytest.mark.parametrize("when", ["while it starts", "while it works", "after its results"])
def test_a_killed_process_is_replaced_and_loses_nothing(start, caplog, when):
    deaths = DeathLog()
    processes = start(work, 2, deaths)
    for item in range(6):
        processes.request(item)
    killed, other = processes.pids
    if when == "while it works":
        assert processes.receive() == 0
    if when == "after its results":
        assert [processes.receive() for _ in range(4)] == [0, 2, 4, 6]
    kill(processes, 0)
    for item in range(6, 10):
        processes.request(item)
    remaining = [processes.receive() for _ in range(processes.pending)]
    assert remaining == list(range(0, 20, 2))[-len(remaining) :]
    assert deaths.count == 1
    assert processes.pids[1] == other != processes.pids[0] != killed
    assert caplog.messages == [
        f"a loading process ({killed}) died of signal 9 (Killed), perhaps killed for want of memory; "
        "a new one loads its batches"
    ]


def test_a_death_is_noticed_only_where_a_result_is_received(start):
    """torch's loader raises where the trainer happens to be, such as in the middle of an optimiser's step."""
    handler, deaths = signal.getsignal(signal.SIGCHLD), DeathLog()
    processes = start(work, 1, deaths)
    processes.request(1)
    assert processes.receive() == 2
    kill(processes, 0)
    processes.request(2)
    processes.request(3)
    # Python runs handlers of signals between any two of its instructions.
    assert sum(1 for _ in range(100_000)) == 100_000
    assert deaths.count == 0
    assert signal.getsignal(signal.SIGCHLD) == handler
    assert [processes.receive(), processes.receive()] == [4, 6]
    assert deaths.count == 1


def test_deaths_without_a_batch_between_them_are_an_error(start, caplog):
    deaths = DeathLog()
    processes = start(work, 2, deaths)
    processes.request("crash")
    with pytest.raises(
        RuntimeError, match=rf"^{MOST_DEATHS} loading processes in a row .* signal 11 .*fewer train.num_workers"
    ):
        processes.receive()
    assert deaths.count == MOST_DEATHS - 1
    assert "memory" not in caplog.text


def test_a_batch_between_deaths_starts_their_count_again(start):
    deaths = DeathLog()
    processes = start(work, 1, deaths)
    for item in range(MOST_DEATHS + 1):
        kill(processes, 0)
        processes.request(item)
        assert processes.receive() == 2 * item
    assert deaths.count == MOST_DEATHS + 1


def test_a_process_that_dies_at_every_start_is_an_error(start):
    """Though it has not read all that it is sent."""
    processes = start(DiesAtTheStart())
    processes.request(0)
    with pytest.raises(RuntimeError, match=r"loading processes in a row died .* signal 9 \(Killed\), perhaps .*memory"):
        processes.receive()


def test_a_process_that_exits_is_an_error(start):
    processes = start(work)
    processes.request("exit")
    with pytest.raises(RuntimeError, match=rf"a loading process \({processes.pids[0]}\) exited with status 3"):
        processes.receive()


def test_errors_keep_their_type_and_their_traceback(start):
    processes = start(work)
    for item in ("raise", 4):
        processes.request(item)
    with pytest.raises(KeyError, match="x") as caught:
        processes.receive()
    shown = "".join(traceback.format_exception(caught.value))
    assert "in a loading process:\n" in shown
    assert 'raise KeyError("x")' in shown
    assert processes.receive() == 8


@pytest.mark.parametrize(
    ("function", "message"),
    [(raise_unpicklable, "Unpicklable: of 3"), (return_unpicklable, "pickle")],
)
def test_what_cannot_be_sent_is_an_error_with_a_traceback(start, function, message):
    processes = start(function)
    processes.request(3)
    with pytest.raises((RuntimeError, AttributeError), match=message) as caught:
        processes.receive()
    assert "in a loading process:\n" in "".join(traceback.format_exception(caught.value))


class FailsToLoad:
    def __reduce__(self):
        return work, ("raise",)


def test_work_that_cannot_be_unpickled_is_an_error(start):
    processes = start(FailsToLoad())
    processes.request(0)
    with pytest.raises(KeyError, match="x"):
        processes.receive()


@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_whole_job_spare_the_processes(start, with_signal):
    """While they start, too. The trainer needs its batches to finish the step."""
    deaths = DeathLog()
    processes = start(work, 1, deaths)
    [pid] = processes.pids
    # SIGTERM of the trainer ends them.
    send_signal = ["sh", "-c", f"kill -{int(with_signal)} {pid}"]
    subprocess.run(send_signal, check=True)
    processes.request(1)
    assert processes.receive() == 2
    subprocess.run(send_signal, check=True)
    processes.request(2)
    assert processes.receive() == 4
    assert (processes.pids, deaths.count) == ([pid], 0)


def test_signals_reach_the_trainer_as_before(start):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    start(work)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_processes_end_with_their_owner(start):
    processes = LoadingProcesses(work, 2)
    pids = processes.pids
    processes.request("hang")
    del processes
    gc.collect()
    assert [has_ended(pid) for pid in pids] == [True, True]


TRAINER = """
if __name__ == "__main__":
    import sys
    sys.path[:0] = {paths!r}
    from reserve.data.loading_processes import LoadingProcesses
    from tests.helpers.worker_functions import work
    processes = LoadingProcesses(work, 2)
    for item in ("pid", "pid", "hang"):
        processes.request(item)
    print(processes.receive(), processes.receive(), flush=True)
    input()
"""


def test_processes_end_when_their_trainer_is_killed(tmp_path):
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER.format(paths=[str(Path(__file__).parents[2])]))
    with subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as trainer:
        assert trainer.stdout is not None
        pids = [int(pid) for pid in trainer.stdout.readline().split()]
        trainer.kill()
    assert len(pids) == 2
    assert [has_ended(pid) for pid in pids] == [True, True]


def test_a_thread_can_start_and_use_them(start, caplog):
    caplog.set_level(logging.WARNING)
    found = []

    def use() -> None:
        processes = start(work)
        processes.request(5)
        kill(processes, 0)
        found.append(processes.receive())

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert found == [10]
    assert "died of signal 9" in caplog.text
