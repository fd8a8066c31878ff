"""Ctrl-C, SIGTERM and SIGUSR1 ask a run to save and to end, within a time that nothing can exceed."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

from reserve.errors import RESUMABLE, Stopped

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""SIGTERM is what job schedulers send before they kill a job, SIGUSR1 what Slurm's --signal sends ahead of it."""


_in_this_process: list[StopRequest] = []


def _forget_all() -> None:
    for request in _in_this_process:
        request.forget()
    _in_this_process.clear()


os.register_at_fork(after_in_child=_forget_all)


class StopRequest:
    """Context manager that turns signals into the attribute `name`: the first signal that came, or None.

    The event `asked` is set too, at once, while the main thread may be in C++ code.

    Until `training` is set, a signal ends the block with Stopped at once, since there is nothing to save. Afterwards it
    only sets `name`, so that the step can end and be saved, and ends what `unless_asked` waits for. A second Ctrl-C
    raises KeyboardInterrupt. Further SIGTERM and SIGUSR1, which schedulers send more than once, change nothing.

    `timeout` seconds after the first signal the process exits with status RESUMABLE, wherever it is, and prints the
    stacks of its threads; 0 waits for ever.

    In other threads than the main one, which gets no signals, it does nothing.
    """

    def __init__(self, timeout: float) -> None:
        self.name: str | None = None
        self.training = False
        self.asked = threading.Event()
        self._timeout = timeout
        self._interruptible = False
        self._before: dict[int, Any] = {}
        self._ended = threading.Event()
        self._pipe: tuple[int, int] | None = None
        self._wakeup_before = -1
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        # Python runs handlers between two instructions of the main thread, which may be waiting for another rank in C++
        # code. The pipe tells the thread at once.
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        self._wakeup_before = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        # A handler that was there before Python could not be put back.
        ours = [number for number in SIGNALS if signal.getsignal(number) is not None]
        self._before = {number: signal.signal(number, self._ask) for number in ours}
        _in_this_process.append(self)
        self._thread = threading.Thread(target=self._enforce, args=(self._pipe[0],), name="stop request", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self in _in_this_process:
            _in_this_process.remove(self)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        if self._pipe is not None and self._thread is not None:
            signal.set_wakeup_fd(self._wakeup_before)
            with suppress(BlockingIOError):  # Full: there is something to read.
                os.write(self._pipe[1], b"\0")  # not closed for that: a forked process may hold it open too
            self._thread.join()
            for end in self._pipe:
                os.close(end)
            self._pipe = self._thread = None

    def unless_asked(self, work: Callable[[], Result]) -> Result | None:
        """What `work` returns, or None if a signal came before or interrupted it. It must not be called again then."""
        result = None
        try:
            try:
                self._interruptible = True
                if self.name is None:
                    result = work()
            finally:
                self._interruptible = False
        except _Interrupted:
            self._interruptible = False  # The signal may have come just before the line above.
            return None
        return result

    def forget(self) -> None:
        """In a process that was forked: signals to it are not for this run, whose pipe it shares."""
        signal.set_wakeup_fd(-1)
        for number in self._before:
            signal.signal(number, signal.SIG_DFL)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        first, self.name = self.name is None, self.name or signal.Signals(number).name
        if not first and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.training:
            # Also again: Python discards what is raised in a finaliser.
            raise Stopped(self.name)
        if first and self._interruptible:
            raise _Interrupted

    def _enforce(self, pipe: int) -> None:
        while not self._ended.is_set():
            if not set(os.read(pipe, 64)) & set(SIGNALS) or self._ended.is_set():
                continue
            self.asked.set()
            if self._timeout and not self._ended.wait(self._timeout):
                logger.critical(
                    "a signal came %g s ago (train.stop_timeout) and the run has not ended: it ends now, and resumes "
                    "from its last checkpoint",
                    self._timeout,
                )
                faulthandler.dump_traceback()
                os._exit(RESUMABLE)


class _Interrupted(BaseException):
    """Ends what `unless_asked` waits for. Not an Exception, so that nothing on the way takes it for a failure."""
