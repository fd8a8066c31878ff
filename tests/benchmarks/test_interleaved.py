"""Interleaved timing: what is timed, in which order, and what pytest-benchmark reports."""

from __future__ import annotations

import re
import time

import pytest
import torch

from benchmarks import interleaved
from benchmarks.interleaved import OURS, Contender, Measured, Missing, WallClock, limit_seconds, measure, publish


def difference(a: float, b: float) -> float:
    return abs(a - b)


def measured_with(builders, *, rounds=4, calls=None, tolerance=0.1) -> Measured:
    """Each call is noted in `calls` and "takes" as many seconds as it returns."""
    notes = [] if calls is None else calls

    def clock(call):
        seconds = call()
        notes.append(seconds)
        return seconds

    return measure(builders, rounds=rounds, difference=difference, tolerance=tolerance, clock=clock, warm_up=0)


def test_a_loop_lasts_and_counts_its_calls(monkeypatch):
    now, rests = [100.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "sleep", rests.append)

    def call():
        now[0] += 0.25

    # The rest is not timed; the loop ends with the call that reaches its length.
    assert WallClock(rest=3.0, lasting=0.9)(call) == 0.25
    assert (now[0], rests) == (101.0, [3.0])
    assert WallClock()(call) == 0.25
    assert (now[0], rests) == (101.25, [3.0])


def contender(seconds: float, result: float = 1.0) -> Contender:
    return Contender(lambda: seconds, lambda: result)


def test_every_round_runs_each_once_in_an_order_that_turns():
    calls: list[float] = []
    names = (OURS, "a", "b")
    measured_with({n: lambda i=i: contender(i) for i, n in enumerate(names)}, rounds=3, calls=calls)
    assert calls == [0, 1, 2, 1, 2, 0, 2, 0, 1]


def test_times_are_of_one_call():
    many = {OURS: lambda: contender(1.0), "peer": lambda: Contender(lambda: 6.0, lambda: 1.0, calls=3)}
    assert measured_with(many).seconds["peer"] == [2.0] * 4


def test_only_chosen_peers_are_built(monkeypatch):
    monkeypatch.setattr(interleaved, "only", re.compile("^b").search)
    builders = {OURS: lambda: contender(1.0), "a": broken, "b": lambda: contender(2.0)}
    measured = measured_with(builders)
    assert list(measured.seconds) == [OURS, "b"]
    assert not measured.wrong


def unavailable() -> Contender:
    raise Missing("not installed")


def out_of_memory() -> Contender:
    raise torch.OutOfMemoryError("no room")


def broken() -> Contender:
    raise ZeroDivisionError("oh")


@pytest.mark.parametrize(("build", "reason"), [(unavailable, "not installed"), (out_of_memory, "out of memory")])
def test_implementations_that_cannot_run_are_named_and_the_rest_timed(build, reason):
    measured = measured_with({OURS: lambda: contender(1.0), "peer": build})
    assert measured.missing == {"peer": reason}
    assert list(measured.seconds) == [OURS]


def test_nothing_is_built_where_ours_cannot_run():
    built = []
    with pytest.raises(pytest.skip.Exception, match="ours cannot run: not installed"):
        measured_with({OURS: unavailable, "peer": lambda: built.append("peer")})
    assert built == []


def test_a_peer_without_room_beside_the_others_leaves_them_their_times():
    def large() -> Contender:
        def call() -> float:
            raise torch.OutOfMemoryError("no room")

        return Contender(call, lambda: 1.0)

    measured = measured_with({OURS: lambda: contender(1.0), "large": large, "peer": lambda: contender(2.0)})
    assert measured.missing == {"large": "out of memory beside the others"}
    assert measured.seconds == {OURS: [1.0] * 4, "peer": [2.0] * 4}


@pytest.mark.parametrize("result", [1.2, float("nan")])
def test_a_peer_that_computes_something_else_is_not_timed(result):
    measured = measured_with({OURS: lambda: contender(1.0), "peer": lambda: contender(1.0, result)})
    assert "differs from ours" in measured.wrong["peer"]
    assert list(measured.seconds) == [OURS]


def test_a_peer_that_breaks_is_named():
    measured = measured_with({OURS: lambda: contender(1.0), "peer": broken})
    assert measured.wrong == {"peer": "ZeroDivisionError: oh"}


def test_ours_must_not_break():
    with pytest.raises(ZeroDivisionError):
        measured_with({OURS: broken})


def test_quick_takes_few_rounds(monkeypatch):
    monkeypatch.setattr(interleaved, "quick", True)
    assert len(measured_with({OURS: lambda: contender(1.0)}, rounds=50).seconds[OURS]) == interleaved.QUICK_ROUNDS


class Benchmark:
    """A fake of pytest-benchmark's fixture with our clock."""

    def __init__(self):
        self.extra_info, self.times, self.group = {}, [], None

    def pedantic(self, call, rounds, iterations):
        for _ in range(rounds):
            start = interleaved._replay()
            call()
            self.times.append(interleaved._replay() - start)


def test_pytest_benchmark_reports_the_measured_times():
    seconds = {OURS: [1.0, 3.0, 2.0], "peer": [6.0, 4.0, 5.0]}
    facts = {"flops": 10.0, "bytes": 1.0, "matmul_flops_per_s": 10.0, "copy_bytes_per_s": 10.0}
    measured = Measured(seconds, {OURS: {}, "peer": {"peak_extra_bytes": 7}}, facts=facts)
    benchmark = Benchmark()
    publish(benchmark, measured, "peer", op="op", device="CPU, 1 thread", label="a case", length=3)
    assert benchmark.times == [6.0, 4.0, 5.0]
    assert benchmark.group == "op, CPU, 1 thread, a case"
    info = benchmark.extra_info
    assert (info["op"], info["case"], info["implementation"], info["length"]) == ("op", "a case", "peer", 3)
    assert (info["ours_is_faster_by"], info["peak_extra_bytes"], info["fraction_of_limit"]) == (2.5, 7, 0.2)


def test_what_is_missing_skips_and_what_is_wrong_fails():
    measured = Measured(missing={"a": "not installed"}, wrong={"b": "differs"})
    with pytest.raises(pytest.skip.Exception, match="not installed"):
        publish(Benchmark(), measured, "a", op="", device="", label="")
    with pytest.raises(pytest.fail.Exception, match="b: differs"):
        publish(Benchmark(), measured, "b", op="", device="", label="")


@pytest.mark.parametrize(("flops", "moved", "limit"), [(10, 1, 5.0), (1, 30, 3.0)], ids=["arithmetic", "bandwidth"])
def test_the_limit_is_the_slower_of_arithmetic_and_copying(flops, moved, limit):
    facts = {"flops": flops, "bytes": moved, "matmul_flops_per_s": 2.0, "copy_bytes_per_s": 10.0}
    assert limit_seconds(facts) == limit


def test_no_limit_where_nothing_was_counted():
    assert limit_seconds({"frames": 3}) is None
