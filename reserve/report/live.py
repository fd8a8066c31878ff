"""Keeps report.html up to date while a run trains."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from reserve.report.page import write_report
from reserve.train.metrics import METRICS_NAME

logger = logging.getLogger(__name__)

SECONDS_BETWEEN = 120.0
"""Least time from one page to the next: drawing takes a second or two of a core."""
LEAST_PAUSE = 50
"""Times as long as drawing took, at least, until the next page: late in a long run there is more to draw."""


class LiveReport:
    """Writes the page of the run in the folder `run` soon after it is called, and when it is closed.

    A call returns at once: a thread writes the page, SECONDS_BETWEEN after the one before at the earliest. A page that
    cannot be written is logged and ends nothing. Only the process that `writes` does anything.
    """

    def __init__(self, run: Path, *, writes: bool = True) -> None:
        self._run, self._writes = run, writes
        self._thread: threading.Thread | None = None
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._wanted = False
        self._next = -float("inf")

    def __call__(self, run: Path) -> None:
        if not self._writes:
            return
        with self._lock:
            self._wanted = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_wanted, name="report", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Ends the thread, and writes the last page."""
        self._ended.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()
        if self._writes and (self._run / METRICS_NAME).is_file():
            self._write()

    def _write_wanted(self) -> None:
        """Writes pages, one after another, until none is wanted. Calls meanwhile are one more page together."""
        while not self._ended.wait(max(self._next - time.monotonic(), 0.0)):
            with self._lock:
                if not self._wanted:
                    self._thread = None
                    return
                self._wanted = False
            start = time.monotonic()
            self._write()
            end = time.monotonic()
            self._next = max(start + SECONDS_BETWEEN, end + LEAST_PAUSE * (end - start))

    def _write(self) -> None:
        try:
            write_report(self._run)
        except Exception as error:
            logger.warning("the run's report.html could not be written: %s", error)
