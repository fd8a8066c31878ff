"""Who trains in a run's folder, and what became of its last start: a lock, and state.json."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from reserve.errors import RunInUse, Stopped
from reserve.fs import write_text_atomic
from reserve.terminal import printable_lines

logger = logging.getLogger(__name__)

LOCK_NAME = ".lock"
"""Locked by the process that trains in the folder. The lock ends with the process, however it ends."""
STATE_NAME = "state.json"
LOCK_SECONDS = 10.0
"""How long to wait for the lock: a run that was just killed may take a moment to be gone."""
_POLL_SECONDS = 0.05
_MOST_LETTERS = 2000


@contextmanager
def locked_run(run: Path, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Makes the folder `run`, and holds its lock and keeps its state.json in the block.

    The state is "running" with the process, then "finished", "stopped" by a signal, or "failed" with the reason. A
    state that cannot be written is logged. Raises RunInUse if another process holds the lock for `seconds`, and OSError
    where nothing can be written into the folder. On a file system without locks it warns and goes on.
    """
    run.mkdir(parents=True, exist_ok=True)
    _check_writable(run)
    with _lock(run, seconds) as held:
        if held is False:
            raise RunInUse(
                f"{run} is in use: {describe_holder(run)} trains in it. Wait for its end, or choose another --out"
            )
        if held is None:
            logger.warning("%s is on a file system without locks: make sure that no other run uses the folder", run)
        with _stated(run):
            yield


@contextmanager
def _stated(run: Path) -> Iterator[None]:
    """Keeps state.json while the block runs and says how it ended."""
    try:
        _write_state(run, "running")
        yield
        _write_state(run, "finished")
    except (Stopped, KeyboardInterrupt) as stopped:
        _write_state(run, "stopped", f"{stopped}" or "KeyboardInterrupt")
        raise
    except BaseException as error:
        _write_state(run, "failed", f"{type(error).__name__}: {error}" if f"{error}" else type(error).__name__)
        raise


def note_loss(run: Path, reason: str) -> None:
    """Says in state.json that a rank was lost or failed, where an error of communication was noted as the reason."""
    if _stored(run).get("state") == "failed":
        _write_state(run, "failed", reason)


def launch_of(run: Path) -> str:
    """Which launch by torchrun trained in the folder last; empty for none."""
    launch = _stored(run).get("launch", "")
    return launch if isinstance(launch, str) else ""


@contextmanager
def _lock(run: Path, seconds: float) -> Iterator[bool | None]:
    """Holds the lock of `run` in the block: True, False if another process has it for `seconds`, None without locks.

    The system's own lock and no file that stands for one: that would outlive a process that is killed.
    """
    descriptor = os.open(run / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield _acquired(descriptor, seconds)
    finally:
        os.close(descriptor)


def _acquired(descriptor: int, seconds: float) -> bool | None:
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL_SECONDS)
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                return None
            raise
        else:
            return True


def read_state(run: Path) -> tuple[str, str]:
    """The state of a run and its reason; empty where there is no state.json or it is damaged.

    A run that was killed left "running" and is "killed".
    """
    stored = _stored(run)
    state, reason = stored.get("state"), stored.get("reason")
    if not isinstance(state, str) or not isinstance(reason, str):
        return "", ""
    return ("killed" if state == "running" and not is_running(run) else state), reason


def is_running(run: Path) -> bool:
    """Whether a process trains in the folder `run`; what state.json says where there are no locks."""
    says_so = _stored(run).get("state") == "running"
    if not (run / LOCK_NAME).is_file():
        return says_so
    try:
        with _lock(run, 0.0) as held:
            return says_so if held is None else not held
    except OSError:  # another user's folder, or one that is read-only
        return says_so


def describe_holder(run: Path) -> str:
    """The process that trains in a run's folder, as state.json says."""
    stored = _stored(run)
    try:
        return f"process {int(stored['pid'])} on {stored['host']!s:.100} (since {stored['since']!s:.40})"
    except (ValueError, TypeError, KeyError):
        return "another process"


def _stored(run: Path) -> dict[str, Any]:
    try:
        stored = json.loads((run / STATE_NAME).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return stored if isinstance(stored, dict) else {}


def _write_state(run: Path, state: str, reason: str = "") -> None:
    now = datetime.now().astimezone().isoformat(" ", "seconds")
    values = {"state": state, "reason": printable_lines(reason)[:_MOST_LETTERS]}
    values["launch"] = os.environ.get("TORCHELASTIC_RUN_ID", "")
    try:
        process = {"host": socket.gethostname(), "pid": os.getpid(), "since": now}
        write_text_atomic(run / STATE_NAME, json.dumps(values | process) + "\n")
    except OSError as error:
        logger.warning("the run's state could not be written: %s", error)


def _has_no_locks(error: Exception) -> bool:
    return getattr(error, "errno", errno.ENOSYS) in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)


def _check_writable(run: Path) -> None:
    """Raises OSError naming the folder where nothing can be written: later errors name a file that nobody knows."""
    try:
        with tempfile.TemporaryFile(dir=run) as file:
            file.write(bytes(4096))
    except OSError as error:
        reason = f"nothing can be written into the run's folder: {error.strerror}"
        raise OSError(error.errno, reason, str(run)) from error
