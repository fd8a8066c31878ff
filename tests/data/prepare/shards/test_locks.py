"""Locks: held by one process at a time, free once it is gone, and required."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading

import pytest

from reserve.data.prepare.shards import locks
from reserve.data.prepare.shards.locks import check_locks, locked, try_lock
from reserve.errors import EnvironmentFailure


def test_a_lock_is_held_once(tmp_path):
    lock = try_lock(tmp_path / "work" / "a.lock")
    assert try_lock(tmp_path / "work" / "a.lock") is None
    lock.release()
    again = try_lock(tmp_path / "work" / "a.lock")
    assert again is not None
    again.release()


def test_a_lock_may_be_released_by_another_thread(tmp_path):
    lock = try_lock(tmp_path / "a.lock")
    thread = threading.Thread(target=lock.release)
    thread.start()
    thread.join()
    again = try_lock(tmp_path / "a.lock")
    assert again is not None
    again.release()


def test_a_process_that_dies_frees_its_lock(tmp_path):
    child = os.fork()
    if not child:
        os._exit(0 if try_lock(tmp_path / "a.lock") else 1)
    assert os.waitpid(child, 0)[1] == 0
    lock = try_lock(tmp_path / "a.lock")
    assert lock is not None
    lock.release()


def test_a_folder_that_is_removed_meanwhile_is_made_again(tmp_path):
    lock = try_lock(tmp_path / "work" / "a.lock")
    shutil.rmtree(tmp_path / "work")
    other = try_lock(tmp_path / "work" / "a.lock")
    assert other is not None
    other.release()
    lock.release()


def test_waits_until_the_lock_is_free(tmp_path, monkeypatch):
    lock = try_lock(tmp_path / "a.lock")
    waits = []

    class Time:
        @staticmethod
        def sleep(seconds):
            waits.append(seconds)
            lock.release()

    monkeypatch.setattr(locks, "time", Time)
    with locked(tmp_path / "a.lock"):
        assert try_lock(tmp_path / "a.lock") is None
    assert len(waits) == 1


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    check_locks(tmp_path / "work")

    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(EnvironmentFailure, match=r"work is on a file system without locks \(No locks available\)"):
        check_locks(tmp_path / "work")
