"""Processes that hang, die or raise lose one item each, and nothing else."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections import Counter
from multiprocessing.connection import wait
from types import SimpleNamespace

import pytest

from reserve.data.prepare import workers as workers_module
from reserve.data.prepare.workers import Lost, Streamer, _serve, run_supervised
from reserve.errors import EnvironmentFailure
from tests.helpers.worker_functions import work, work_on_each

FAR = 3600.0
"""A time limit that no machine is slow enough to reach."""


@pytest.fixture
def children():
    """Child processes of earlier tests, such as those of a loader that waits to be collected."""
    return set(multiprocessing.active_children())


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_item_once(workers):
    assert dict(run_supervised(work, list(range(9)), workers=workers, timeout=FAR)) == {i: 2 * i for i in range(9)}


def test_each_failure_costs_its_own_item_alone(monkeypatch):
    now = 0.0
    monkeypatch.setattr(workers_module, "time", SimpleNamespace(monotonic=lambda: now))
    items = [1, "crash", 2, "hang", "raise", "exit", 3]
    results = {}
    for index, result in run_supervised(work, items, workers=2, timeout=FAR):
        results[index] = result
        if len(results) == len(items) - 1:
            # Only the item that hangs is left: its time is up now.
            now = FAR
    assert {index: result for index, result in results.items() if not isinstance(result, Lost)} == {0: 2, 2: 4, 6: 6}
    reasons = [results[index].reason for index in (1, 3, 4, 5)]
    assert reasons == [
        "its decoding process died (signal SIGSEGV)",
        "took more than 3600 s",
        "internal error: KeyError: 'x'",
        "its decoding process died (exit code 3)",
    ]


def test_a_worker_is_replaced_before_leaks_add_up(monkeypatch):
    """No item is lost, and none is started for which there is no item."""
    monkeypatch.setattr(workers_module, "_ITEMS_A_PROCESS", 2)
    results = dict(run_supervised(work, ["pid"] * 4, workers=1, timeout=FAR))
    assert sorted(Counter(results.values()).values()) == [2, 2]
    results = dict(run_supervised(work, ["pid"] * 5, workers=2, timeout=FAR))
    assert len(results) == 5
    assert max(Counter(results.values()).values()) == 2


def test_exception_in_this_process_is_lost_too():
    ((_, result),) = run_supervised(work, ["raise"], workers=0, timeout=FAR)
    assert result == Lost("internal error: KeyError: 'x'")


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_full_disk_stops_everything(workers, children):
    """The next item would fail too."""
    results = run_supervised(work, [1, "full", *range(100)], workers=workers, timeout=FAR)
    seen = []
    with pytest.raises(EnvironmentFailure, match="No space left on device"):
        seen.extend(results)
    assert len(seen) < 100
    assert set(multiprocessing.active_children()) <= children


@pytest.mark.parametrize("items", [["terminate", 1], [1, "terminate"]])
def test_a_worker_that_a_scheduler_ends_costs_no_item(items, children):
    results = run_supervised(work, items, workers=1, timeout=FAR)
    seen = []
    with pytest.raises(EnvironmentFailure, match="a worker process was ended by SIGTERM"):
        seen.extend(result for _, result in results)
    assert seen == [2] * items.index("terminate")
    assert set(multiprocessing.active_children()) <= children


def test_workers_end_with_a_parent_that_is_killed():
    """At once: an item may take hours."""
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE) as parent:
        worker = int(parent.stdout.readline())
        parent.kill()
        try:
            # The worker has the other end of the pipe until it ends.
            assert parent.communicate(timeout=600) == (b"", None)
        except subprocess.TimeoutExpired:
            os.kill(worker, signal.SIGKILL)
            raise


_PARENT = """
from reserve.data.prepare.workers import run_supervised
from tests.helpers.worker_functions import write_pid_and_hang

if __name__ == "__main__":
    list(run_supervised(write_pid_and_hang, [1], workers=1, timeout=3600))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("before", [1, 2, 3])
def test_a_signal_in_the_middle_of_a_start_leaves_no_process(monkeypatch, number, before):
    """It comes when a process runs that has not got its function yet: the first, the second, one that is replaced."""
    spawn, pids = multiprocessing.util.spawnv_passfds, []

    def spawn_then_signal(*arguments):
        pids.append(spawn(*arguments))
        if len(pids) == before:
            signal.raise_signal(number)
        return pids[-1]

    def end(number, _):
        raise SystemExit(number)

    multiprocessing.resource_tracker.ensure_running()  # it starts by the same function
    monkeypatch.setattr(multiprocessing.util, "spawnv_passfds", spawn_then_signal)
    handler = signal.signal(number, end)
    try:
        with pytest.raises(SystemExit) as stopped:
            list(run_supervised(work, ["crash", 1, 2, 3], workers=2, timeout=FAR))
        assert signal.getsignal(number) is end
    finally:
        signal.signal(number, handler)
    assert stopped.value.code == number
    assert len(pids) == before
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("after", [1, 3])
def test_a_signal_while_handlers_change_leaves_those_of_before(monkeypatch, after):
    """It comes when the first handler is replaced and the second is not yet, or when one is back already."""
    change, changes = signal.signal, []

    def change_then_signal(number, handler):
        before = change(number, handler)
        changes.append(number)
        if len(changes) == after:
            signal.raise_signal(signal.SIGTERM if after == 1 else number)
        return before

    def end(number, _):
        raise SystemExit(number)

    handlers = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        monkeypatch.setattr(signal, "signal", change_then_signal)
        with pytest.raises(SystemExit), workers_module._signals_held():
            pass
        assert len(changes) >= after
        assert [signal.getsignal(number) for number in handlers] == [end, end]
    finally:
        for number, handler in handlers.items():
            change(number, handler)


def test_an_ignored_signal_stays_ignored_in_workers():
    handler = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert dict(run_supervised(work, ["terminate"], workers=1, timeout=FAR)) == {0: 2 * "terminate"}
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, handler)


def test_no_items():
    assert list(run_supervised(work, [], workers=2, timeout=1)) == []


def test_leaving_early_ends_the_workers(children):
    results = run_supervised(work, [1, "hang"], workers=2, timeout=FAR)
    assert next(results) == (0, 2)
    results.close()
    assert set(multiprocessing.active_children()) <= children


@pytest.mark.parametrize("options", [{"workers": -1, "timeout": 1}, {"workers": 1, "timeout": 0}])
def test_bad_arguments(options):
    with pytest.raises(ValueError, match="workers must be"):
        list(run_supervised(work, [1], **options))


@pytest.mark.parametrize("gone", [EOFError, BrokenPipeError])
def test_a_worker_ends_quietly_when_its_parent_is_gone(monkeypatch, gone):
    """Also if it finds out while it sends a result: a run that a signal ended prints nothing more."""

    class Orphaned:
        started = False

        def send(self, message):
            if self.started:
                raise BrokenPipeError
            self.started = True

        def recv(self):
            if gone is EOFError:
                raise EOFError
            return 1

    monkeypatch.setattr("reserve.data.prepare.workers.signal.signal", lambda *_: None)
    assert _serve(str, Orphaned()) is None


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_items_are_taken_only_when_a_worker_is_free(workers):
    taken = []

    def items():
        for number in range(20):
            taken.append(number)
            yield number

    results = run_supervised(work, items(), workers=workers, timeout=FAR)
    assert taken == []
    for done, _ in enumerate(results, start=1):
        # Those that are done, and one for each worker.
        assert len(taken) <= done + max(workers - 1, 0)
    assert taken == list(range(20))


def test_items_that_come_after_every_worker_died():
    def items():
        yield "crash"
        yield 4

    (first, second) = run_supervised(work, items(), workers=1, timeout=FAR)
    assert isinstance(first[1], Lost)
    assert second == (1, 8)


def test_an_item_that_cannot_be_made_ends_the_workers(children):
    def items():
        yield 1
        raise KeyError("no next item")

    with pytest.raises(KeyError):
        list(run_supervised(work, items(), workers=1, timeout=FAR))
    assert set(multiprocessing.active_children()) <= children


def outcomes_of(streamer, item):
    """All results of an item."""
    streamer.start(item)
    found = []
    while streamer.is_busy:
        wait(streamer.handles, timeout=streamer.seconds_left())
        found.extend(streamer.poll())
    return found


class TestStreamer:
    def test_results_one_by_one_and_failures(self, children):
        with Streamer(work_on_each, FAR) as streamer:
            assert outcomes_of(streamer, [1, 2, 3]) == [2, 4, 6]
            first = streamer._worker.process.pid
            assert outcomes_of(streamer, []) == []
            assert streamer._worker.process.pid == first
            assert outcomes_of(streamer, [1, "crash", 2]) == [2, Lost("its decoding process died (signal SIGSEGV)")]
            assert outcomes_of(streamer, [4, "raise", 2]) == [8, Lost("internal error: KeyError: 'x'")]
            assert streamer._worker is None
        assert set(multiprocessing.active_children()) <= children

    def test_time_limit_begins_again_with_each_result(self, monkeypatch):
        now = 0.0
        monkeypatch.setattr(workers_module, "time", SimpleNamespace(monotonic=lambda: now))
        with Streamer(work_on_each, 10) as streamer:
            streamer.start([1, 2, "hang"])
            found = []
            while streamer.is_busy:
                wait(streamer.handles, timeout=0.02)
                for result in streamer.poll():
                    found.append(result)
                    now += 9
                if len(found) == 2:
                    now += 9
        assert found == [2, 4, Lost("took more than 10 s")]

    def test_a_full_disk_stops_everything(self, children):
        with Streamer(work_on_each, FAR) as streamer, pytest.raises(EnvironmentFailure, match="No space left"):
            outcomes_of(streamer, [1, "full"])
        assert set(multiprocessing.active_children()) <= children
