"""Signals ask for a stop once, and stop at once the second time."""

from __future__ import annotations

import os
import signal

import pytest

from reserve.train.stopping import StopRequest


@pytest.fixture
def arrived():
    """Signals that reach the handlers there were before, which are put back afterwards."""
    received: list[str] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {n: signal.signal(n, lambda n, _: received.append(signal.Signals(n).name)) for n in numbers}
    yield received
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_is_recorded_and_not_raised(arrived, name):
    with StopRequest() as stop:
        assert stop.name is None
        os.kill(os.getpid(), signal.Signals[name])
        assert stop.name == name
    assert arrived == []


@pytest.mark.parametrize("second", ["SIGINT", "SIGTERM"])
def test_a_second_signal_has_its_usual_effect(arrived, second):
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.Signals[second])
        assert stop.name == "SIGINT"
    assert arrived == [second]


@pytest.mark.parametrize("asked", [False, True])
def test_handlers_are_restored_afterwards(arrived, asked):
    with StopRequest():
        if asked:
            os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    assert arrived == ["SIGTERM"]


def test_handlers_are_restored_when_training_fails(arrived):
    with pytest.raises(RuntimeError), StopRequest():
        raise RuntimeError
    os.kill(os.getpid(), signal.SIGINT)
    assert arrived == ["SIGINT"]
