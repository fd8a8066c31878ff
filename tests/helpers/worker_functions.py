"""Work for the processes of test_workers.py, which import it by name."""

from __future__ import annotations

import os
import signal
import time


def work(item):
    """Doubles numbers; a string selects a way to misbehave."""
    if item == "hang":
        time.sleep(600)
    if item == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "exit":
        os._exit(3)
    if item == "raise":
        raise KeyError("x")
    return item * 2
