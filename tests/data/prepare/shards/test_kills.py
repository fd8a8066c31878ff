"""Preparations that are killed, and processes that work on one set at once: the same bytes as one left alone."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from tests.helpers.shard_videos import contents, make_videos, prepare


@pytest.fixture(autouse=True)
def _ctrl_c():
    """Children start with Ctrl-C at work, also where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def run_command(videos, out, *options):
    command = [sys.executable, "-m", "reserve", "prepare", str(videos), str(out), "--videos_per_shard=2", *options]
    return subprocess.Popen(
        [*command, "--workers=1", "--decoder=pyav"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def test_two_processes_on_one_fold(shard_source, shard_set, tmp_path):
    processes = [run_command(shard_source, tmp_path) for _ in range(2)]
    for process in processes:
        errors = process.communicate()[1]
        assert process.returncode == 0, errors
    assert contents(tmp_path) == contents(shard_set)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_all_processes_and_the_work_resumes(shard_source, shard_set, tmp_path, number, status):
    process = run_command(shard_source, tmp_path / "out")
    while not (tmp_path / "out" / "settings.json").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(number)
    # Workers have the other end of the pipe until they end.
    errors = process.communicate(timeout=600)[1].decode()
    assert "What is prepared is kept: run the command again to resume" in errors
    assert "Traceback" not in errors
    assert process.returncode == status
    assert run_command(shard_source, tmp_path / "out").wait() == 0
    assert contents(tmp_path / "out") == contents(shard_set)


@pytest.mark.slow
def test_kills_at_any_instant(tmp_path):
    """Killed and started again a dozen times, at instants that cover the whole preparation."""
    source = make_videos(tmp_path / "videos", 14)
    prepare(source, tmp_path / "whole")
    started = time.monotonic()
    assert run_command(source, tmp_path / "timed").wait() == 0
    takes = time.monotonic() - started
    random = np.random.default_rng()
    for instant in np.sort(random.uniform(0.2, 1.0, 12)):
        process = run_command(source, tmp_path / "out")
        killer = threading.Timer(float(instant) * takes, process.kill)
        killer.start()
        process.wait()
        killer.cancel()
    assert run_command(source, tmp_path / "out").wait() == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_kills_at_every_step(videos, shard_set, tmp_path):
    """Each process is killed some steps after the one before, so that any two steps have had a kill between them."""
    command = [sys.executable, "-m", "tests.helpers.killed_preparations", str(videos), str(tmp_path / "out")]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 5
    assert contents(tmp_path / "out") == contents(shard_set)
