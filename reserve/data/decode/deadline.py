"""A wall-clock limit that long loops check, so that no file holds the program for ever."""

from __future__ import annotations

import time

from reserve.errors import BadInput


class Deadline:
    """`seconds` from its making; `check` raises BadInput once they have passed."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def check(self) -> None:
        if time.monotonic() > self._end:
            raise BadInput(f"decoding took more than {self.seconds:g} s")
