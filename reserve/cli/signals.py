"""Signals whose exceptions Python swallowed are delivered again."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_AGAIN_SECONDS = 0.01


@contextmanager
def redelivered_signals() -> Iterator[None]:
    """Delivers Ctrl-C and SIGTERM again where the exceptions of their handlers had no effect in the block.

    Handlers run between any two instructions of the main thread. What they raise in a finaliser, or in a callback of a
    weak reference or of C code, Python only prints, and the program goes on as if nothing had happened. Here such a
    signal comes again a moment later, until its exception gets through. KeyboardInterrupt stands for SIGINT and
    SystemExit for SIGTERM. Uses the timer of SIGALRM.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs signal handlers in the main thread only
        return
    swallowed: list[int] = []

    def notice(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt | SystemExit):
            swallowed[:] = [signal.SIGINT if issubclass(unraisable.exc_type, KeyboardInterrupt) else signal.SIGTERM]
            # Not at once: an exception that is raised in this function would be swallowed too.
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
        else:
            hook(unraisable)

    def deliver(number: int | None = None, frame: FrameType | None = None) -> None:
        # With the signal's own handler, which may have changed or may hold it back.
        while swallowed:
            signal.raise_signal(swallowed.pop())

    hook, handler = sys.unraisablehook, signal.signal(signal.SIGALRM, deliver)
    sys.unraisablehook = notice
    try:
        yield
    finally:
        sys.unraisablehook = hook
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        deliver()
