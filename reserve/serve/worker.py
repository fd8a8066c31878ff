"""One thread that computes one work after another: a model on a device serves nobody sooner by serving two at once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from reserve.serve.answering import Progress


class Busy(Exception):
    """Too many works wait already."""


class Ended(Exception):
    """The server ends, and the work with it."""


class Job:
    """A work that waits, runs or is done. `future` has its result; `done` of `total` parts are done, 0 of 0 before the
    first report."""

    def __init__(self, work: Callable[[Progress], Any]) -> None:
        self.work, self.future = work, Future[Any]()
        self.done, self.total = 0, 0

    def cancel(self) -> None:
        """Nobody waits for it any more: it is not computed unless it has begun."""
        self.future.cancel()


class Worker:
    """Computes the works in the order in which they were submitted; at most `most_waiting` wait at a time."""

    def __init__(self, most_waiting: int) -> None:
        self.most_waiting = most_waiting
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._ended = False
        self._changed = threading.Condition()
        # A daemon, so that a work in the middle of a long video does not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Progress], Any]) -> Job:
        """Queues `work`, which gets a function to report progress to. Raises Busy, or Ended after `close`."""
        with self._changed:
            if self._ended:
                raise Ended("the server is shutting down")
            self._forget_cancelled()
            if len(self._waiting) >= self.most_waiting:
                raise Busy(f"busy: {self.most_waiting} requests are waiting; try again in a moment")
            job = Job(work)
            self._waiting.append(job)
            self._changed.notify()
        return job

    def ahead_of(self, job: Job) -> int | None:
        """How many works are computed before it; None if it has begun or is done."""
        with self._changed:
            self._forget_cancelled()
            if job not in self._waiting:
                return None
            return self._waiting.index(job) + (self._running is not None)

    @property
    def ended(self) -> bool:
        """Whether nothing is to be expected of it any more."""
        return self._ended

    def end(self) -> None:
        """Drops what waits, and ends what runs at its next report."""
        with self._changed:
            self._ended = True
            for job in self._waiting:
                job.cancel()
            self._waiting.clear()
            self._changed.notify()

    def close(self, seconds: float = 3.0) -> None:
        """Ends it, and waits at most `seconds` for what runs."""
        self.end()
        self._thread.join(seconds)

    def _forget_cancelled(self) -> None:
        self._waiting = deque(job for job in self._waiting if not job.future.cancelled())

    def _work(self) -> None:
        while (job := self._next()) is not None:
            if job.future.set_running_or_notify_cancel():
                try:
                    job.future.set_result(job.work(self._reports_of(job)))
                except BaseException as error:  # the thread must survive whatever a work raises
                    job.future.set_exception(error)
            with self._changed:
                self._running = None

    def _next(self) -> Job | None:
        """The next work, None once the worker has ended."""
        with self._changed:
            while not self._waiting and not self._ended:
                self._changed.wait()
            if self._ended:
                return None
            self._running = self._waiting.popleft()
            return self._running

    def _reports_of(self, job: Job) -> Progress:
        def report(done: int, total: int) -> None:
            if self._ended:
                raise Ended("the server is shutting down")
            job.done, job.total = done, total

        return report
