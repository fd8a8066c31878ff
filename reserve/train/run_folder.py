"""A run's folder: config.yaml with the task, its settings and where its data is, and the lock of who trains in it."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from reserve.config import FitConfig
from reserve.config.load import RUN_CONFIG, build_section, plain_values, read_yaml, write_yaml
from reserve.errors import RunInUse
from reserve.fs import write_text_atomic
from reserve.tasks import Task, find_task

logger = logging.getLogger(__name__)

DEFAULT_TASK = "pretrain"
"""The task of runs older than the setting."""
LOCK = ".lock"
"""Locked by the process that trains in a run's folder. The lock ends with the process, however it ends."""
HOLDER = "running.json"
"""Says which process that is. A file without the lock is what a killed run left."""
LOCK_SECONDS = 10.0
"""How long to wait for the lock: a run that was just killed may take a moment to be gone."""


def write_run_settings(run: Path, task: Task[Any, Any], config: FitConfig) -> None:
    """Writes `run`/config.yaml, a configuration file like any other.

    Paths in it are absolute, so that the run can be resumed from any folder. The run's own folder is not in it: a run
    can be moved or copied.
    """
    run.mkdir(parents=True, exist_ok=True)
    write_yaml(run / RUN_CONFIG, run_settings(task, config))


def run_settings(task: Task[Any, Any], config: FitConfig) -> dict[str, Any]:
    """What config.yaml holds: the task's name and settings and the trainer's, as plain values."""
    trainer = {name: plain_values(getattr(config, name)) for name in ("optimizer", "train")}
    return {"task": task.name, **task.settings(), **trainer}


def read_run(run: Path) -> tuple[Task[Any, Any], FitConfig]:
    """The task and the settings in a run's config.yaml.

    Raises ValueError where `run` has none, or naming what is wrong in it.
    """
    path = run / RUN_CONFIG
    if not path.is_file():
        raise ValueError(f"{run} is not a run's folder: it has no {RUN_CONFIG}")
    settings = read_yaml(path)
    name = settings.get("task", DEFAULT_TASK)
    if not isinstance(name, str):
        raise ValueError(f"{path}: task must be a name; got {name!r:.80}")
    try:
        task = find_task(name)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    missing = [name for name in (*task.sections(), "optimizer", "train") if name not in settings]
    if missing:
        raise ValueError(f"{path} lacks the section {missing[0]}")
    fit_settings = {name: settings[name] for name in ("optimizer", "train")}
    return task.from_settings(settings, f"{path}:"), build_section(FitConfig, fit_settings, f"{path}:")


@contextmanager
def locked_run(run: Path, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Makes the folder `run` and holds its lock in the block.

    Raises RunInUse if another process holds it for `seconds`, and OSError where nothing can be written into the folder.
    On a file system without locks it warns and goes on.
    """
    # Imported where it is used: it comes with an extra.
    from filelock import FileLock, Timeout

    run.mkdir(parents=True, exist_ok=True)
    _check_writable(run)
    lock = FileLock(run / LOCK, thread_local=False)
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        raise RunInUse(
            f"{run} is in use: {describe_holder(run)} trains in it. Wait for its end, or choose another --out"
        ) from None
    except (NotImplementedError, OSError) as error:
        if not _has_no_locks(error):
            raise
        logger.warning("%s is on a file system without locks: make sure that no other run uses the folder", run)
    try:
        holder = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.now().astimezone().isoformat(" ", "seconds"),
        }
        write_text_atomic(run / HOLDER, json.dumps(holder) + "\n")
        yield
    finally:
        with suppress(OSError):
            (run / HOLDER).unlink()
        lock.release()


def is_running(run: Path) -> bool:
    """Whether a process trains in the folder `run`, as far as its file system has locks."""
    from filelock import FileLock, Timeout

    if not (run / LOCK).is_file():
        return (run / HOLDER).exists()
    lock = FileLock(run / LOCK, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except (NotImplementedError, OSError):  # no locks, or another user's folder
        return (run / HOLDER).exists()
    lock.release()
    return False


def describe_holder(run: Path) -> str:
    """The process that trains in a run's folder, as its own file says."""
    try:
        holder = json.loads((run / HOLDER).read_text("utf-8"))
        return f"process {int(holder['pid'])} on {holder['host']!s:.100} (since {holder['since']!s:.40})"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"


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
