"""Locks between processes, on one machine or on several that share a file system. A process that dies frees its own."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from reserve.errors import EnvironmentFailure

POLL_SECONDS = 1.0
"""Between two looks at a lock that another process holds."""


def check_locks(folder: Path) -> None:
    """Makes `folder` and raises EnvironmentFailure if its file system has no locks."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise EnvironmentFailure(
                f"{folder} is on a file system without locks ({error.strerror}); two processes could write the same "
                "shard. Mount it with locks or choose another OUT"
            ) from error


def try_lock(path: Path) -> FileLock | None:
    """The lock at `path`, held by this process from now on, or None if another holds it."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Acquired and released in different threads.
        lock = FileLock(path, thread_local=False)
        with suppress(FileNotFoundError):  # The folder is removed when a set is finished.
            try:
                lock.acquire(timeout=0)
            except Timeout:
                return None
            return lock


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits for the lock at `path` and holds it in the block."""
    while (lock := try_lock(path)) is None:
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()
