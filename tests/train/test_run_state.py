"""A run's lock, which one process holds, and its state.json: what became of its last start."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from reserve.errors import BadInput, RunInUse, Stopped
from reserve.train.run_state import (
    STATE_NAME,
    describe_holder,
    is_running,
    launch_of,
    locked_run,
    note_loss,
    read_state,
)


def test_it_is_running_and_then_finished(tmp_path):
    with locked_run(tmp_path):
        assert read_state(tmp_path) == ("running", "")
    assert read_state(tmp_path) == ("finished", "")


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (BadInput("no\x1b[31m videos"), "failed", "BadInput: no\\x1b[31m videos"),
        (KeyboardInterrupt(), "stopped", "KeyboardInterrupt"),
        (Stopped("SIGTERM", Path("x")), "stopped", "stopped by SIGTERM with the checkpoint x"),
    ],
)
def test_an_error_is_the_reason_and_goes_on(tmp_path, error, state, reason):
    with pytest.raises(type(error)), locked_run(tmp_path):
        raise error
    assert read_state(tmp_path) == (state, reason)


def test_a_state_that_cannot_be_written_is_logged_and_ends_nothing(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("reserve.train.run_state.write_text_atomic", full)
    with locked_run(tmp_path):
        pass
    assert "the run's state could not be written: No space left on device" in caplog.text


@pytest.mark.parametrize("text", ["", "[]", '{"state": 1, "reason": ""}', '{"state": "running"}', "[" * 100_000])
def test_a_damaged_file_says_nothing(tmp_path, text):
    (tmp_path / STATE_NAME).write_text(text)
    assert read_state(tmp_path) == ("", "")


HOLDS = """
import sys
from pathlib import Path
from reserve.train.run_state import locked_run
with locked_run(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that trains in the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_folder_in_use_is_refused_with_the_process_that_uses_it(holder, tmp_path):
    assert is_running(tmp_path / "run")
    refused = pytest.raises(RunInUse, match=rf"run is in use: process {holder.pid} on .+ \(since 20.+\) trains in it")
    with refused, locked_run(tmp_path / "run", seconds=0):
        pytest.fail("entered")
    # What is refused leaves the holder's file alone.
    assert json.loads((tmp_path / "run" / STATE_NAME).read_text())["pid"] == holder.pid


def test_a_killed_process_holds_nothing(holder, tmp_path):
    holder.kill()
    holder.wait()
    assert not is_running(tmp_path / "run")
    assert read_state(tmp_path / "run") == ("killed", "")
    with locked_run(tmp_path / "run", seconds=0):
        assert is_running(tmp_path / "run")
        assert json.loads((tmp_path / "run" / STATE_NAME).read_text())["pid"] == os.getpid()
    assert not is_running(tmp_path / "run")


def test_the_lock_ends_with_a_failure(tmp_path):
    with pytest.raises(KeyError), locked_run(tmp_path):
        raise KeyError
    assert not is_running(tmp_path)


def test_a_folder_that_was_never_run_is_not_running(tmp_path):
    assert not is_running(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", '{"pid": "x"}', '{"pid": 3}'])
def test_a_damaged_file_of_the_holder_names_nobody(tmp_path, content):
    (tmp_path / STATE_NAME).write_text(content)
    assert describe_holder(tmp_path) == "another process"


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def full(**_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "some temporary file")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    refused = pytest.raises(OSError, match=f"nothing can be written into the run's folder: No space left.*{tmp_path}")
    with refused, locked_run(tmp_path):
        pytest.fail("entered")


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_without_locks_it_warns_and_runs(tmp_path, monkeypatch, caplog, code):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", fail)
    with locked_run(tmp_path):
        assert "is on a file system without locks" in caplog.text
        assert is_running(tmp_path)
    assert not is_running(tmp_path)


def test_another_error_of_the_lock_is_raised(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="Input/output error"), locked_run(tmp_path):
        pytest.fail("entered")


def test_a_lost_rank_is_the_reason_rather_than_what_followed(tmp_path):
    with pytest.raises(RuntimeError), locked_run(tmp_path):
        raise RuntimeError("gloo: connection closed by peer")
    note_loss(tmp_path, "rank 3 died")
    assert read_state(tmp_path) == ("failed", "rank 3 died")


def test_a_run_that_ended_well_lost_nothing(tmp_path):
    with locked_run(tmp_path):
        pass
    note_loss(tmp_path, "rank 3 died")
    assert read_state(tmp_path) == ("finished", "")


def test_the_launch_that_began_a_run_is_known(tmp_path, monkeypatch):
    assert launch_of(tmp_path) == ""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "b1f0")
    with locked_run(tmp_path):
        pass
    assert launch_of(tmp_path) == "b1f0"
