"""Runs a function over items in processes that may hang or die. Each costs its own item alone, with a reason.

The standard executors cannot kill a worker that hangs, and stop altogether when one dies. Hostile files make a decoder
do both.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from reserve.errors import EnvironmentFailure
from reserve.fs import is_environment_failure

logger = logging.getLogger(__name__)
# Job schedulers and terminals send these to every process of a job. No video is at fault.
_ENDED_FROM_OUTSIDE = (signal.SIGTERM, signal.SIGHUP)
_ITEMS_A_PROCESS = 2000
"""After so many a worker is replaced: decoding libraries leak, some a kilobyte a file (docs/decoding.md, "Memory")."""
Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerEnded(EnvironmentFailure):
    """A worker process that someone ended from outside, as the scheduler of a machine does that is shut down."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The result of an item that failed, with the reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Stop:
    """The outcome of an item that failed for a reason that will fail every other item too."""

    reason: str


def run_supervised(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, timeout: float
) -> Iterator[tuple[int, Result | Lost]]:
    """Yields (index, result) of every item as it finishes, exactly one for each.

    Takes an item from `items` when a worker is free for it, never ahead, and starts no more workers than there are
    items. `function`, items and results must be picklable. The result of an item that takes longer than `timeout`
    seconds, kills its process or raises is `Lost`. With `workers` 0 everything runs in this process, and nothing is
    killed. Raises EnvironmentFailure, and stops, when an item fails with one or with such an error (see fs.py),
    WorkerEnded when a worker is ended by SIGTERM or SIGHUP, and RuntimeError if worker processes do not start.
    """
    if workers < 0 or timeout <= 0:
        raise ValueError(f"workers must be >= 0 and timeout > 0 seconds; got {workers} and {timeout}")
    if workers == 0:
        for index, item in enumerate(items):
            yield index, _checked(_call(function, item))
        return
    with Pool(function, items, workers=workers, timeout=timeout) as pool:
        while True:
            pool.feed()
            if pool.is_done:
                return
            wait(pool.handles, timeout=pool.seconds_left())
            yield from pool.poll()


class Pool(Generic[Item, Result]):
    """The processes of `run_supervised`, for callers that watch others too; a context manager that ends them.

    Call `feed`, wait for `handles` at most `seconds_left`, call `poll`, and so on until `is_done`.
    """

    def __init__(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, timeout: float
    ) -> None:
        self._function, self._timeout = function, timeout
        self._left = enumerate(items)
        self._waiting = deque(islice(self._left, workers))
        self._more = len(self._waiting) == workers
        self._workers: list[_Worker[Item, Result]] = []

    def __enter__(self) -> Pool[Item, Result]:
        try:
            for _ in range(len(self._waiting)):
                with _signals_held():
                    self._workers.append(_Worker(self._function))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.kill()

    @property
    def is_done(self) -> bool:
        """Whether every item has its result."""
        return not (self._more or self._waiting or any(worker.is_busy for worker in self._workers))

    @property
    def handles(self) -> list[Any]:
        """What `multiprocessing.connection.wait` takes: one is ready when `poll` has something to do."""
        return [handle for worker in self._workers for handle in worker.handles]

    def seconds_left(self) -> float | None:
        """How long until an item has taken too long; None if none is being worked on."""
        return _seconds_left(self._workers)

    def feed(self) -> None:
        """Gives each worker that is free an item."""
        for worker in self._workers:
            if worker.is_ready and self._more and not self._waiting:
                self._waiting.extend(islice(self._left, 1))
                self._more = bool(self._waiting)
            if worker.is_ready and self._waiting:
                worker.start(*self._waiting.popleft(), self._timeout)

    def poll(self) -> Iterator[tuple[int, Result | Lost]]:
        """The results since the last call, with the indices of their items. Replaces workers that failed or are old."""
        for place, worker in enumerate(self._workers):
            outcome, usable = worker.poll(self._timeout)
            if outcome is not None:
                yield outcome[0], _checked(outcome[1])
            if not usable or (worker.is_ready and worker.items >= _ITEMS_A_PROCESS and (self._more or self._waiting)):
                worker.kill()
                with _signals_held():
                    self._workers[place] = _Worker(self._function)


class Streamer(Generic[Item, Result]):
    """One supervised process, for a function that returns an iterator of several results; a context manager.

    Each result may take `timeout` seconds after the one before it. The process starts with the first item, and again
    after a failure.
    """

    def __init__(self, function: Callable[[Item], Iterator[Result]], timeout: float) -> None:
        self._function, self._timeout = _Parts(function), timeout
        self._worker: _Worker[Item, None] | None = None
        self._waiting: Item | None = None

    def __enter__(self) -> Streamer[Item, Result]:
        return self

    def __exit__(self, *_: object) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker = None

    @property
    def is_busy(self) -> bool:
        return self._waiting is not None or (self._worker is not None and self._worker.is_busy)

    @property
    def handles(self) -> list[Any]:
        """As those of a Pool."""
        return [] if self._worker is None else self._worker.handles

    def seconds_left(self) -> float | None:
        """How long until a result has taken too long; None if none is due."""
        return _seconds_left([] if self._worker is None else [self._worker])

    def start(self, item: Item) -> None:
        """Begins an item; none may be in work."""
        self._waiting = item
        if self._worker is None:
            with _signals_held():
                self._worker = _Worker(self._function)
        self._feed(self._worker)

    def poll(self) -> Iterator[Result | Lost]:
        """The results since the last call. Lost is the last one of an item that failed."""
        if (worker := self._worker) is None:
            return
        outcome, usable = worker.poll(self._timeout)
        if not usable or (outcome is not None and isinstance(outcome[1], Lost)):
            # Also after an exception: what the process has in memory, or on a device, may be of no use any more.
            worker.kill()
            self._worker = None
        else:
            self._feed(worker)
        if outcome is not None and (result := _checked(outcome[1])) is not None:
            yield result.result if isinstance(result, _Part) else result

    def _feed(self, worker: _Worker[Item, None]) -> None:
        if worker.is_ready and self._waiting is not None:
            item, self._waiting = self._waiting, None
            worker.start(0, item, self._timeout)


def run_items(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, timeout: float
) -> Iterator[tuple[Item, Result | Lost]]:
    """run_supervised, yielding the items themselves with their results."""
    taken: dict[int, Item] = {}

    def remembered() -> Iterator[Item]:
        for index, item in enumerate(items):
            taken[index] = item
            yield item

    for index, result in run_supervised(function, remembered(), workers=workers, timeout=timeout):
        yield taken.pop(index), result


@contextmanager
def _signals_held() -> Iterator[None]:
    """Delays Ctrl-C and SIGTERM until the end of the block.

    A handler that raises in the middle of Process.start() leaves a process that nobody ends, or that never gets its
    function and dies with a traceback. A mask would not do: a signal goes to any thread that does not block it, and
    processes inherit masks.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs signal handlers in the main thread only
        return
    arrived: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # Processes inherit SIG_IGN, which must stay. None is one that Python did not set.
    held = {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
    with ExitStack() as ending:
        # What is pushed last runs first, and an error of one keeps no other from running: a handler that is back may
        # raise before the next one is.
        ending.callback(_raise_signals, arrived)
        for number, handler in held.items():
            ending.callback(signal.signal, number, handler)
        for number in held:
            signal.signal(number, lambda each, _: arrived.append(each))
        yield


def _raise_signals(numbers: Iterable[int]) -> None:
    for number in dict.fromkeys(numbers):
        signal.raise_signal(number)


def _seconds_left(workers: Iterable[_Worker[Any, Any]]) -> float | None:
    ends = [worker.end for worker in workers if worker.is_busy]
    return max(min(ends) - time.monotonic(), 0) if ends else None


def _checked(outcome: Result | Lost | _Stop) -> Result | Lost:
    if isinstance(outcome, _Stop):
        raise EnvironmentFailure(outcome.reason)
    return outcome


def _call(function: Callable[[Item], Result], item: Item) -> Result | Lost | _Stop:
    try:
        return function(item)
    except Exception as error:
        if is_environment_failure(error):
            return _Stop(str(error))
        logger.debug("item lost: %s", traceback.format_exc())
        return Lost(f"internal error: {type(error).__name__}: {error}")


@dataclass(frozen=True, slots=True)
class _Part:
    """One of several results of an item."""

    result: Any


@dataclass(frozen=True, slots=True)
class _Parts:
    """A function that sends each of the results of `function`, and returns nothing."""

    function: Callable[[Any], Iterator[Any]]

    def send(self, item: Any, connection: Connection) -> None:
        for result in self.function(item):
            connection.send(_Part(result))


def _serve(function: Callable[[Any], Any] | _Parts, connection: Connection) -> None:
    """Runs in a worker process: sends the results of each item it receives, until the connection closes."""
    # Ctrl-C reaches the whole process group, but the parent ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    connection.send(None)
    call = partial(function.send, connection=connection) if isinstance(function, _Parts) else function
    while True:
        try:
            connection.send(_call(call, connection.recv()))
        except (EOFError, OSError):
            return  # the parent has exited


def _end_with_parent() -> None:
    """Ends this process when the parent dies: a long video would keep it busy for many minutes."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


class _Worker(Generic[Item, Result]):
    """A process and the item it works on. Its first message says that it has started; before that it is not ready."""

    def __init__(self, function: Callable[[Item], Result] | _Parts) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(function, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.items = 0
        self._started = False
        self._index: int | None = None
        self._timeout = self.end = float("inf")

    @property
    def handles(self) -> list[Any]:
        return [self.connection, self.process.sentinel]

    @property
    def is_busy(self) -> bool:
        return self._index is not None

    @property
    def is_ready(self) -> bool:
        return self._started and not self.is_busy

    def start(self, index: int, item: Item, timeout: float) -> None:
        self._index, self._timeout, self.end = index, timeout, time.monotonic() + timeout
        self.items += 1
        try:
            self.connection.send(item)
        except OSError:
            logger.debug("worker %s died before it got an item", self.process.pid)

    def poll(self, timeout: float) -> tuple[tuple[int, Result | Lost | _Stop] | None, bool]:
        """The outcome of the item that ended since the last call, if any, and whether the worker can take another."""
        try:
            if self.connection.poll():
                return self._receive(), True
        except (EOFError, OSError):
            return self._died(), False
        if self.is_busy and time.monotonic() >= self.end:
            return self._finish(Lost(f"took more than {timeout:g} s")), False
        return None, True

    def _receive(self) -> tuple[int, Any] | None:
        message = self.connection.recv()
        if not self._started:
            self._started = True
            return None
        if isinstance(message, _Part) and self._index is not None:
            self.end = time.monotonic() + self._timeout
            return self._index, message
        return self._finish(message)

    def _died(self) -> tuple[int, Result | Lost | _Stop] | None:
        self.process.join()
        code = self.process.exitcode or 0
        if -code in _ENDED_FROM_OUTSIDE:
            raise WorkerEnded(f"a worker process was ended by {signal.Signals(-code).name}")
        if not self._started and code < 0:
            raise EnvironmentFailure(f"a worker process died while it started ({signal.Signals(-code).name})")
        if not self._started:
            raise RuntimeError(
                f"worker processes do not start (exit code {code}); a script that uses them must guard its main part "
                "with if __name__ == '__main__'"
            )
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return self._finish(Lost(f"its decoding process died ({how})")) if self.is_busy else None

    def _finish(self, outcome: Result | Lost | _Stop) -> tuple[int, Result | Lost | _Stop]:
        assert self._index is not None
        index, self._index, self.end = self._index, None, float("inf")
        return index, outcome

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()
