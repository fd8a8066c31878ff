"""What worker processes in tests run and load. They import it by name."""

from __future__ import annotations

import errno
import os
import signal
import time

from reserve.errors import BadInput


def work(item):
    """Doubles numbers; strings name a way to fail."""
    if item == "hang":
        time.sleep(3600)
    if item == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "exit":
        os._exit(3)
    if item == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if item == "raise":
        raise KeyError("x")
    return item * 2


class Keys:
    """A training set whose examples are their own keys, or BadInput if `bad`."""

    def __init__(self, length: int, *, bad: bool = False) -> None:
        self.length, self.bad = length, bad

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, int]:
        if self.bad:
            raise BadInput("clip.safetensors: damaged")
        return key
