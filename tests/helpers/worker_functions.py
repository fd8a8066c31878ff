"""What worker processes in tests run and load. They import it by name."""

from __future__ import annotations

import atexit
import errno
import os
import signal
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from reserve.data.order import SetShare
from reserve.errors import DamagedSample


def work(item):
    """Doubles numbers; "pid" is this process, other strings name a way to fail."""
    if item == "hang":
        time.sleep(3600)
    if item == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "terminate":
        os.kill(os.getpid(), signal.SIGTERM)
    if item == "exit":
        os._exit(3)
    if item == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if item == "raise":
        raise KeyError("x")
    if item == "pid":
        return os.getpid()
    return item * 2


def work_on_each(items):
    """`work` of each of several items, one by one."""
    for item in items:
        yield work(item)


class Unpicklable(Exception):
    """An error that is pickled but cannot be unpickled."""

    def __init__(self, item, _needed) -> None:
        super().__init__(f"of {item}")


def raise_unpicklable(item):
    raise Unpicklable(item, None)


def return_unpicklable(item):
    return lambda: item


def write_pid_and_hang(item):
    print(os.getpid(), flush=True)
    time.sleep(3600)


class Keys:
    """A training set whose examples are their own keys, or which raises `error`."""

    def __init__(self, length: int, *, error: Exception | None = None) -> None:
        self.length, self.error = length, error

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, int]:
        if self.error is not None:
            raise self.error
        return key


class Damaged:
    """A mixture whose examples are their own keys, but for those of the indices `damaged`."""

    def __init__(self, shares: Sequence[SetShare], damaged: Collection[int]) -> None:
        self.shares, self.damaged = shares, damaged

    def __len__(self) -> int:
        return sum(share.examples for share in self.shares)

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, int]:
        if key[1] in self.damaged:
            raise DamagedSample(f"sample {key[1]}")
        return key


class MarksItsEnd(Keys):
    """A training set whose loading process writes `marker` if Python is finalised there."""

    def __init__(self, length: int, marker: Path) -> None:
        super().__init__(length)
        self.marker = marker

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state
        atexit.register(self.marker.touch)


class DiesAtTheStart:
    """Examples that kill the process that they are sent to, before it has read all that is sent."""

    def __init__(self) -> None:
        self.content = bytes(10_000_000)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, key: tuple[int, int]) -> int:
        return 0

    def __reduce__(self) -> tuple:
        return _die, (_Dying(), self.content)


class _Dying:
    def __reduce__(self) -> tuple:
        return os.kill, (_OwnProcess(), signal.SIGKILL)


class _OwnProcess:
    def __reduce__(self) -> tuple:
        return os.getpid, ()


def _die(*_: object) -> None:
    raise AssertionError("the process lives")
