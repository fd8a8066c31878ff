from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import weakref

import pytest

from reserve.cli.signals import redelivered_signals


@pytest.fixture(autouse=True)
def _handlers():
    """Ctrl-C and SIGTERM raise, as in commands that handle them, and no test leaves anything behind."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    hook = sys.unraisablehook
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, end)
    yield
    assert sys.unraisablehook is hook
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) is before[signal.SIGALRM]
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
LONG = 30
"""Seconds that no wait lasts, unless the signal is lost."""
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
def test_the_end_of_the_block_delivers_what_is_left(number, error):
    steps = []

    @redelivered_signals()
    def run():
        in_a_finaliser(number)
        steps.append("done")

    with pytest.raises(error):
        run()
    assert steps == ["done"]


def test_the_handler_of_the_moment_gets_it():
    """It may hold signals back, as preparation does while it starts a process."""
    arrived = []
    with redelivered_signals():
        in_a_finaliser(signal.SIGTERM)
        signal.signal(signal.SIGTERM, lambda number, _: arrived.append(number))
        time.sleep(0.1)
        assert arrived == [signal.SIGTERM]


def test_a_signal_whose_exception_gets_through_comes_once():
    with pytest.raises(SystemExit), redelivered_signals():
        signal.raise_signal(signal.SIGTERM)
    time.sleep(0.05)


def test_other_exceptions_go_where_they_went(monkeypatch):
    class Bad:
        def __del__(self):
            raise ValueError("of a finaliser")

    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: seen.append(str(unraisable.exc_value)))
    with redelivered_signals():
        Bad()
    assert seen == ["of a finaliser"]


def test_other_threads_than_the_main_one_change_nothing():
    hook, hooks = sys.unraisablehook, []

    def run():
        with redelivered_signals():
            hooks.append(sys.unraisablehook)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert hooks == [hook]
