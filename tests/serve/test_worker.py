"""The worker computes one thing at a time, in order, and nothing that nobody waits for."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import pytest

from reserve.serve.worker import Busy, Ended, Worker

SECONDS = 30  # more than any of this takes


@pytest.fixture
def worker():
    worker = Worker(most_waiting=2)
    yield worker
    worker.close()


@pytest.fixture
def held(worker):
    """A work that runs until the event is set."""
    gate, begun = threading.Event(), threading.Event()

    def work(progress):
        begun.set()
        assert gate.wait(SECONDS)
        return "held"

    job = worker.submit(work)
    assert begun.wait(SECONDS)
    yield job, gate
    gate.set()


def test_works_are_computed_in_order_by_one_thread(worker, held):
    threads = []
    jobs = [worker.submit(lambda progress, n=n: (threads.append(threading.get_ident()), n)[1]) for n in range(2)]
    assert [worker.ahead_of(job) for job in (held[0], *jobs)] == [None, 1, 2]
    held[1].set()
    assert [job.future.result(SECONDS) for job in jobs] == [0, 1]
    assert len(set(threads)) == 1


def test_progress_is_shown_while_a_work_runs(worker):
    shown, gate = threading.Event(), threading.Event()

    def work(progress):
        progress(3, 12)
        shown.set()
        gate.wait(SECONDS)

    job = worker.submit(work)
    assert shown.wait(SECONDS)
    assert (job.done, job.total) == (3, 12)
    gate.set()
    job.future.result(SECONDS)


def test_more_than_may_wait_are_refused(worker, held):
    for _ in range(2):
        worker.submit(lambda progress: None)
    with pytest.raises(Busy, match="busy: 2 requests are waiting"):
        worker.submit(lambda progress: None)


def test_a_cancelled_work_makes_room_and_is_not_computed(worker, held):
    computed = []
    jobs = [worker.submit(lambda progress, n=n: computed.append(n)) for n in range(2)]
    jobs[0].cancel()
    assert worker.ahead_of(jobs[1]) == 1
    last = worker.submit(lambda progress: computed.append(2))
    held[1].set()
    last.future.result(SECONDS)
    assert computed == [1, 2]


def test_a_work_that_fails_leaves_the_worker_working(worker):
    def fail(progress):
        raise SystemExit("no")

    with pytest.raises(SystemExit):
        worker.submit(fail).future.result(SECONDS)
    assert worker.submit(lambda progress: 7).future.result(SECONDS) == 7


def test_closing_drops_what_waits_and_ends_what_runs_at_its_next_report():
    worker, begun = Worker(most_waiting=2), threading.Event()

    def endless(progress):
        while True:
            begun.set()
            progress(1, 2)

    running = worker.submit(endless)
    assert begun.wait(SECONDS)
    waiting = worker.submit(lambda progress: None)
    worker.close()
    with pytest.raises(Ended):
        running.future.result(SECONDS)
    with pytest.raises(CancelledError):
        waiting.future.result(SECONDS)
    with pytest.raises(Ended):
        worker.submit(lambda progress: None)
