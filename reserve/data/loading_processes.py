"""Processes that load batches, each replaced when it dies."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import socket
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import current_process, get_context, resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Any, NamedTuple

import torch

from reserve.data.shared_message import Closed, receive, send

logger = logging.getLogger(__name__)

MOST_DEATHS = 3
"""Deaths without a batch between them after which loading fails. One or two can be bad luck, as when another program
needs much memory for a moment; with three it is the batch or the machine that kills every process."""

SECONDS_TO_DIE = 10.0
"""How long a process that has closed its connection may take to end: it frees its memory after that."""

SECONDS_TO_CLOSE = 2.0
"""How long processes have to end by themselves once nothing is wanted of them. They end at once, unless they are inside
of code that does not let their other threads run."""


def check_main_is_guarded() -> None:
    """Raises RuntimeError in a process that is spawned and runs its script's main part for want of a guard."""
    if getattr(current_process(), "_inheriting", False):
        raise RuntimeError(
            'a script that trains must guard its main part with if __name__ == "__main__": processes that load data '
            "import the script, and would train too"
        )


class DeathLog:
    """Logs loading processes that were killed and replaced, and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, pid: int | None, number: int) -> None:
        self.count += 1
        logger.warning("a loading process (%s) died of %s; a new one loads its batches", pid, _describe(number))


class LoadingProcesses:
    """Applies `work`, a picklable function, to items in `count` processes; results come in the order of the items.

    The processes start at once, one item after another goes to each in turn, and each sends results on a connection of
    its own. A process that was killed is noticed when its next result is received, not in between: a new one gets the
    items whose results are missing, so nothing is lost or doubled. Signals are left alone. A process that hangs is
    waited for.
    """

    def __init__(self, work: Callable[[Any], Any], count: int, deaths: DeathLog | None = None) -> None:
        self._work, self._deaths = work, deaths or DeathLog()
        self._workers: list[_Worker] = []
        # A garbage-collected loader must not leave processes behind, nor one whose start failed half-way.
        self.close = weakref.finalize(self, _close, self._workers)
        for _ in range(count):
            self._workers.append(_Worker.start(work))
        self._requested = self._received = self._deaths_in_a_row = 0

    @property
    def pids(self) -> list[int | None]:
        """The processes' ids."""
        return [worker.process.pid for worker in self._workers]

    @property
    def pending(self) -> int:
        """Results that were requested and not yet received."""
        return self._requested - self._received

    def request(self, item: Any) -> None:
        """Asks for `work(item)`. It does not wait."""
        self._workers[self._requested % len(self._workers)].request(item)
        self._requested += 1

    def ready(self) -> bool:
        """Whether the next result, or the death of its process, can be received without waiting."""
        return bool(wait([self._workers[self._received % len(self._workers)].connection], 0))

    def receive(self) -> Any:
        """The next result. Raises what `work` raised, with the traceback of the process as its cause.

        Raises RuntimeError where MOST_DEATHS processes were killed one after the other, and where one exits.
        """
        number = self._received % len(self._workers)
        while True:
            worker = self._workers[number]
            try:
                outcome = receive(worker.connection)
            except Closed:
                self._workers[number] = self._replacement(worker)
                continue
            worker.items.popleft()
            self._received += 1
            self._deaths_in_a_row = 0
            if isinstance(outcome, _Raised):
                raise outcome.error from _Traceback(outcome.traceback)
            return outcome

    def _replacement(self, worker: _Worker) -> _Worker:
        status = worker.end()
        if status >= 0:
            raise RuntimeError(
                f"a loading process ({worker.process.pid}) exited with status {status}; what it printed says why"
            )
        self._deaths_in_a_row += 1
        if self._deaths_in_a_row == MOST_DEATHS:
            raise RuntimeError(
                f"{MOST_DEATHS} loading processes in a row died before they had loaded a batch, the last of "
                f"{_describe(-status)}; with fewer train.num_workers, or more memory, they may live"
            )
        self._deaths.add(worker.process.pid, -status)
        new = _Worker.start(self._work)
        for item in worker.items:
            new.request(item)
        return new


class InThisProcess:
    """Applies `work` to items in this process, when a result is received; otherwise as LoadingProcesses."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self._work, self._items = work, deque[Any]()

    @property
    def pending(self) -> int:
        return len(self._items)

    def request(self, item: Any) -> None:
        self._items.append(item)

    def ready(self) -> bool:
        return True

    def receive(self) -> Any:
        return self._work(self._items.popleft())

    def close(self) -> None:
        self._items.clear()


class _Raised(NamedTuple):
    error: Exception
    traceback: str


class _Traceback(Exception):
    """Shows the traceback of an error in another process."""

    def __str__(self) -> str:
        return f"in a loading process:\n{self.args[0]}"


@dataclass
class _Worker:
    """A process, this end of its connection, and the items whose results have not been received."""

    process: BaseProcess
    connection: socket.socket
    items: deque[Any] = field(default_factory=deque)

    @classmethod
    def start(cls, work: Callable[[Any], Any]) -> _Worker:
        here, there = socket.socketpair()
        try:
            with there:
                process = get_context("spawn").Process(target=_serve, args=(there,), daemon=True)
                # Ctrl-C reaches the whole process group, and job schedulers send their signals to every process of a
                # job. The trainer decides when to stop, and needs its batches to finish the step.
                before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
                try:
                    # Python's own helper ignores the other two. Started with the first process, it would unblock them.
                    resource_tracker.ensure_running()
                    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
                    process.start()
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, before)
            worker = cls(process, here)
            worker._send(work)
        except BaseException:
            here.close()
            raise
        return worker

    def request(self, item: Any) -> None:
        self.items.append(item)
        self._send(item)

    def _send(self, value: Any) -> None:
        # The death of a process is noticed where its result is received.
        with contextlib.suppress(ConnectionError):
            send(self.connection, value)

    def end(self) -> int:
        """Its exit status, or minus the signal that killed it."""
        self.connection.close()
        self.process.join(SECONDS_TO_DIE)
        if self.process.exitcode is None:
            self.process.kill()
            # Not for ever: a process that waits for a lost mount cannot even be killed.
            self.process.join(SECONDS_TO_DIE)
        return -signal.SIGKILL if self.process.exitcode is None else self.process.exitcode


def _close(workers: list[_Worker]) -> None:
    """Ends all processes, together: a run that a signal stops has no time to wait for one after the other."""
    for worker in workers:
        worker.connection.close()
    _join([worker.process for worker in workers])
    for worker in workers:
        worker.process.kill()
    _join([worker.process for worker in workers])


def _join(processes: list[BaseProcess]) -> None:
    end = time.monotonic() + SECONDS_TO_CLOSE
    for process in processes:
        process.join(max(end - time.monotonic(), 0.0))


def _describe(number: int) -> str:
    name = f"signal {number} ({signal.strsignal(number)})"
    return name + (", perhaps killed for want of memory" if number == signal.SIGKILL else "")


def _serve(connection: socket.socket) -> None:
    """What a loading process does until its trainer closes the connection or dies."""
    torch.set_num_threads(1)
    threading.Thread(target=_exit_on_sigterm_from, args=(os.getppid(),), daemon=True).start()
    try:
        work = _received_work(connection)
        items = SimpleQueue[Any]()
        threading.Thread(target=_read_items, args=(connection, items), daemon=True).start()
        while True:
            _send_outcome(connection, _outcome(work, items.get()))
    except (Closed, ConnectionError):
        os._exit(0)


def _received_work(connection: socket.socket) -> Callable[[Any], Any]:
    try:
        work: Callable[[Any], Any] = receive(connection)
    except Closed:
        raise
    except Exception as error:
        return partial(_raise, error)
    return work


def _raise(error: Exception, _item: Any) -> Any:
    raise error


def _read_items(connection: socket.socket, items: SimpleQueue[Any]) -> None:
    """Reads what is requested, and ends the process where nothing can be any more, whatever it is loading."""
    while True:
        try:
            items.put(receive(connection))
        except Closed:
            # Finalising Python would take seconds, and wait for what is being loaded.
            os._exit(0)


def _outcome(work: Callable[[Any], Any], item: Any) -> Any:
    try:
        return work(item)
    except Exception as error:
        return _raised(error)


def _send_outcome(connection: socket.socket, outcome: Any) -> None:
    try:
        send(connection, outcome)
    except ConnectionError:
        raise
    except Exception as error:
        send(connection, _raised(error))


def _raised(error: Exception) -> _Raised:
    """What the trainer raises: the error itself where it can be pickled, else its text."""
    text = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return _Raised(error, text)


def _exit_on_sigterm_from(trainer: int) -> None:
    """Ends the process at a SIGTERM from the trainer, which sends one at its exit, and from no other process."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer:
        pass
    os._exit(128 + signal.SIGTERM)
