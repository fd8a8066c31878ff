"""Signals whose exceptions Python discarded are delivered again."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from reserve.errors import Stopped

_AGAIN_SECONDS = 0.01


@contextmanager
def redelivered_signals() -> Iterator[None]:
    """Delivers Ctrl-C and SIGTERM again when Python discards the exceptions that their handlers raise in the block.

    Handlers run between any two instructions of the main thread. What they raise in a finaliser, or in a callback of a
    weak reference or of C code, Python hands to sys.unraisablehook, and the program goes on as if nothing had happened.
    Here such a signal comes again a moment later.
    """
    main = threading.main_thread().ident
    if threading.get_ident() != main:
        yield  # Python runs signal handlers in the main thread only
        return
    hook, discarded, lock = sys.unraisablehook, set[int](), threading.Lock()

    def notice(unraisable: Any) -> None:
        number = _signal_of(unraisable) if threading.get_ident() == main else None
        if number is None:
            hook(unraisable)
            return
        discarded.add(number)
        # In a thread, since an exception raised here would be discarded too. threading's own threads take locks, which
        # the code that this has interrupted may hold.
        _thread.start_new_thread(deliver, ())

    def deliver() -> None:
        time.sleep(_AGAIN_SECONDS)
        with lock:
            # Not to a default handler, which would kill the process before it has flushed what it printed.
            for number in [*discarded]:  # a copy, since the main thread adds to it at any time
                if callable(signal.getsignal(number)):
                    discarded.remove(number)
                    signal.pthread_kill(main, number)

    sys.unraisablehook = notice
    try:
        yield
    finally:
        sys.unraisablehook = hook
        with lock:
            left = [*discarded]
            discarded.clear()
        for number in left:
            if not callable(signal.getsignal(number)):
                raise SystemExit(128 + number)
            signal.raise_signal(number)


def _signal_of(unraisable: Any) -> int | None:
    """The signal whose handler raised a discarded exception, None if something else did."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        return signal.SIGINT
    if isinstance(unraisable.exc_value, Stopped):
        return signal.Signals[unraisable.exc_value.signal_name]
    code = getattr(signal.getsignal(signal.SIGTERM), "__code__", None)
    trace = unraisable.exc_traceback
    while issubclass(unraisable.exc_type, SystemExit) and trace is not None:
        if trace.tb_frame.f_code is code:
            return signal.SIGTERM
        trace = trace.tb_next
    return None
