from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import weakref
from contextlib import suppress

import pytest

from reserve.cli import signals
from reserve.cli.signals import redelivered_signals

LONG = 30
"""Seconds that no wait lasts, unless the signal is lost."""


@pytest.fixture(autouse=True)
def _handlers(monkeypatch):
    """Ctrl-C and SIGTERM raise, as in commands that handle them, and come again after long enough for a statement."""
    monkeypatch.setattr(signals, "_AGAIN_SECONDS", 0.3)
    before = {number: signal.getsignal(number) for number, _ in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, end)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def end(number, _):
    raise SystemExit(128 + number)


class Finalised:
    def __init__(self, number):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)


def in_a_finaliser(number):
    Finalised(number)


def in_a_cycles_finaliser(number):
    cycle = Finalised(number)
    cycle.itself = cycle
    del cycle
    gc.collect()


def in_a_weak_references_callback(number):
    item = type("Item", (), {})()
    reference = weakref.ref(item, lambda _: signal.raise_signal(number))
    del item
    assert reference() is None


PLACES = [in_a_finaliser, in_a_cycles_finaliser, in_a_weak_references_callback]
SIGNALS = [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize(("number", "error"), SIGNALS)
def test_a_swallowed_exception_is_raised_later(place, number, error):
    steps = []

    @redelivered_signals()
    def run():
        place(number)
        steps.append("swallowed")
        time.sleep(LONG)
        steps.append("not delivered")

    with pytest.raises(error) as raised:
        run()
    assert steps == ["swallowed"]
    assert error is KeyboardInterrupt or raised.value.code == 143


def test_a_delivery_that_is_swallowed_too_is_repeated():
    class Slow:
        def __del__(self):
            time.sleep(LONG)
            steps.append("not delivered")

    steps = []

    @redelivered_signals()
    def run():
        in_a_finaliser(signal.SIGTERM)
        for _ in range(3):
            Slow()
            steps.append("swallowed")
        time.sleep(LONG)

    with pytest.raises(SystemExit):
        run()
    assert steps == ["swallowed"] * 3


def test_it_ends_a_wait_in_a_system_call():
    reader, writer = os.pipe()
    late = threading.Timer(LONG, os.write, (writer, b"late"))
    late.start()

    @redelivered_signals()
    def run():
        in_a_finaliser(signal.SIGTERM)
        os.read(reader, 1)

    try:
        with pytest.raises(SystemExit):
            run()
        assert late.is_alive()
    finally:
        late.cancel()
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize(("number", "error"), SIGNALS)
@pytest.mark.parametrize("handled", [True, False])
def test_the_end_of_the_block_delivers_what_is_left(monkeypatch, number, error, handled):
    monkeypatch.setattr(signals, "_AGAIN_SECONDS", LONG)
    steps = []

    @redelivered_signals()
    def run():
        in_a_finaliser(number)
        if not handled:  # As after a command that has its own handler.
            signal.signal(number, signal.SIG_DFL)
        steps.append("done")

    with pytest.raises(error if handled else SystemExit) as raised:
        run()
    assert steps == ["done"]
    assert (handled and number == signal.SIGINT) or raised.value.code == 128 + number


def test_a_default_handler_does_not_kill_the_process():
    @redelivered_signals()
    def run():
        in_a_finaliser(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(0.5)

    with pytest.raises(SystemExit) as raised:
        run()
    assert raised.value.code == 143


def test_the_handler_of_the_moment_gets_it():
    """It may hold signals back, as preparation does while it starts a process."""
    arrived = []
    with redelivered_signals():
        in_a_finaliser(signal.SIGTERM)
        signal.signal(signal.SIGTERM, lambda number, _: arrived.append(number))
        time.sleep(0.5)
        assert arrived == [signal.SIGTERM]


def test_a_signal_whose_exception_gets_through_comes_once():
    with pytest.raises(SystemExit), redelivered_signals():
        signal.raise_signal(signal.SIGTERM)
    time.sleep(0.5)


@pytest.mark.parametrize("error", [ValueError("of a finaliser"), SystemExit("of a finaliser")])
@pytest.mark.parametrize("in_thread", [False, True])
def test_exceptions_of_other_origin_go_where_they_went(monkeypatch, error, in_thread):
    class Bad:
        def __del__(self):
            raise error

    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: seen.append(str(unraisable.exc_value)))
    with redelivered_signals():
        if in_thread:
            thread = threading.Thread(target=Bad)
            thread.start()
            thread.join()
        else:
            Bad()
        time.sleep(0.5)
    assert seen == ["of a finaliser"]


@pytest.mark.parametrize("error", [None, ValueError])
def test_the_hook_of_before_is_back(error):
    hook = sys.unraisablehook
    with suppress(ValueError), redelivered_signals():
        assert sys.unraisablehook is not hook
        if error:
            raise error
    assert sys.unraisablehook is hook


def test_other_threads_than_the_main_one_change_nothing():
    hook, hooks = sys.unraisablehook, []

    def run():
        with redelivered_signals():
            hooks.append(sys.unraisablehook)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert hooks == [hook]
