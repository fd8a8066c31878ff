"""Signals ask a run to stop: at once before it trains, after its step then, and in any case within a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from reserve.errors import RESUMABLE, Stopped
from reserve.train.stopping import SIGNALS, StopRequest

NAMES = ["SIGINT", "SIGTERM", "SIGUSR1"]
NEVER = 1e6


@pytest.fixture
def arrived():
    """Signals that reach the handlers there were before, which are put back afterwards."""
    received: list[str] = []
    before = {n: signal.signal(n, lambda n, _: received.append(signal.Signals(n).name)) for n in SIGNALS}
    yield received
    for number, handler in before.items():
        signal.signal(number, handler)


def training(timeout: float = NEVER) -> StopRequest:
    request = StopRequest(timeout)
    request.training = True
    return request


def send(name: str) -> None:
    os.kill(os.getpid(), signal.Signals[name])


@pytest.mark.parametrize("name", NAMES)
def test_a_signal_is_recorded_and_not_raised_while_it_trains(arrived, name):
    with training() as stop:
        assert stop.name is None
        send(name)
        assert stop.name == name
    assert arrived == []


@pytest.mark.parametrize("name", NAMES)
def test_before_it_trains_a_signal_ends_it_at_once(arrived, name):
    with pytest.raises(Stopped, match=f"stopped by {name} before the first step"), StopRequest(NEVER):
        send(name)
    assert arrived == []


def test_before_it_trains_a_second_signal_ends_it_too(arrived):
    """Python discards what a handler raises in a finaliser, and the signal is delivered again."""
    with StopRequest(NEVER):
        with suppress(Stopped):
            send("SIGTERM")
        with pytest.raises(Stopped, match="SIGTERM"):
            send("SIGTERM")


def test_a_forked_process_leaves_its_parent_alone(arrived):
    """As one of multiprocessing's, which a pool ends by SIGTERM."""
    reading, writing = os.pipe()
    with training(timeout=0.05) as stop:
        child = os.fork()
        if child == 0:
            os.write(writing, b"ready")
            signal.pause()
            os._exit(0)
        assert os.read(reading, 5) == b"ready"
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        assert not stop.asked.wait(0.2)
        assert stop.name is None


@pytest.mark.parametrize("first", NAMES)
def test_a_second_ctrl_c_raises(arrived, first):
    with training():
        send(first)
        with pytest.raises(KeyboardInterrupt):
            send("SIGINT")


@pytest.mark.parametrize("second", ["SIGTERM", "SIGUSR1"])
def test_signals_that_schedulers_repeat_change_nothing(arrived, second):
    with training() as stop:
        send("SIGUSR1")
        send(second)
        assert stop.name == "SIGUSR1"
    assert arrived == []


@pytest.mark.parametrize("asked", [False, True])
def test_handlers_are_restored_afterwards(arrived, asked):
    with training():
        if asked:
            send("SIGTERM")
    for name in NAMES:
        send(name)
    assert arrived == NAMES


def test_handlers_are_restored_when_training_fails(arrived):
    with pytest.raises(RuntimeError), training():
        raise RuntimeError
    send("SIGINT")
    assert arrived == ["SIGINT"]


def test_a_signal_interrupts_what_waits(arrived):
    """The wait is one that ends with the test only, and the signal comes from another thread meanwhile."""
    with training() as stop:
        waits = threading.Event()
        sender = threading.Thread(target=lambda: (waits.wait(), send("SIGUSR1")))
        sender.start()

        def wait() -> str:
            waits.set()
            while True:
                threading.Event().wait(0.01)

        assert stop.unless_asked(wait) is None
        sender.join()
        assert stop.name == "SIGUSR1"
        assert stop.unless_asked(lambda: pytest.fail("called after the signal")) is None


def test_without_a_signal_nothing_is_interrupted(arrived):
    with training() as stop:
        assert stop.unless_asked(lambda: "a batch") == "a batch"
        with pytest.raises(KeyError):
            stop.unless_asked(lambda: {}["its own errors pass"])
        send("SIGTERM")  # Outside of the call it is not raised.


def test_the_wakeup_of_the_program_around_is_restored(arrived):
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    try:
        with training():
            pass
        assert signal.set_wakeup_fd(-1) == writing
    finally:
        signal.set_wakeup_fd(-1)
        os.close(reading)
        os.close(writing)


def test_in_another_thread_it_does_nothing():
    done = []

    def run() -> None:
        with training() as stop:
            done.append(stop.unless_asked(lambda: "a batch"))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done == ["a batch"]


HANGS = """
import ctypes, os, signal, sys
from reserve.train.stopping import StopRequest
with StopRequest(0.2) as stop:
    stop.training = True
    if sys.argv[1] == "elsewhere":
        # As in a collective of C++ code, where Python's handlers do not run: the signal's call is restarted.
        signal.siginterrupt(signal.SIGTERM, False)
        print("ready", flush=True)
        libc = ctypes.CDLL(None)
        while True:
            libc.sleep(1000)
    os.kill(os.getpid(), signal.SIGTERM)
    while True:
        signal.pause()
"""


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_run_that_does_not_end_in_time_is_ended(where):
    process = subprocess.Popen(
        [sys.executable, "-c", HANGS, where], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        if where == "elsewhere":
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGTERM)
        _, printed = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == RESUMABLE
    assert "a signal came 0.2 s ago (train.stop_timeout) and the run has not ended" in printed
    assert "most recent call first" in printed  # where it was


def test_a_run_that_ends_in_time_is_left_alone(arrived):
    with training(timeout=0.01) as stop:
        assert stop.name is None
    with training(timeout=600) as stop:
        send("SIGTERM")
    assert stop.name == "SIGTERM"
