"""Times the implementations of a case interleaved, and reports each one's times to pytest-benchmark.

All implementations of a case are built, compared with ours, and timed together. Every round runs each of them once, so
that a slowdown of the machine affects all of them. Each has a test of its own that reports its times, so that
pytest-benchmark's tables, histograms and comparisons show them side by side.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

Call = Callable[[], object]

OURS = "reserve"
"""Name of this project's implementation."""

only: Callable[[str], object] | None = None
"""Builds only the peers for which it is true. `--peers` sets it."""
QUICK_ROUNDS = 3
quick = False
"""A few rounds, to see whether everything runs. `--quick` sets it."""


class Missing(Exception):
    """Raised by an implementation that cannot run here; the message says why."""


@dataclass
class Contender:
    """An implementation of a case, ready to be called.

    `call` is timed and does the job `calls` times. `result()` returns what is compared with ours before that;
    None if nothing is comparable. `details` go to the stored result.
    """

    call: Call
    result: Callable[[], Any] | None = None
    calls: int = 1
    details: dict[str, Any] = field(default_factory=dict)


@dataclass
class Measured:
    """The result of a case: the seconds of each round by implementation, and why others have none."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    details: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    """Facts of the case: FLOPs, bytes, the machine's limits."""


def largest_relative_difference(values: Sequence[torch.Tensor], ours: Sequence[torch.Tensor]) -> float:
    """The largest norm of a difference relative to the norm of ours, over several tensors."""
    pairs = [(a.float(), b.float()) for a, b in zip(values, ours, strict=True)]
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


def selected(implementation: str) -> bool:
    """Whether an implementation is built and timed: ours always, and the peers that `--peers` chose."""
    return implementation == OURS or only is None or bool(only(implementation))


class WallClock:
    """Seconds that a call takes, by the host's clock."""

    def __call__(self, call: Call) -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start


def measure(
    builders: Mapping[str, Callable[[], Contender]],
    *,
    rounds: int,
    difference: Callable[[Any, Any], float],
    tolerance: float | Mapping[str, float],
    clock: Callable[[Call], float] | None = None,
    warm_up: int = 2,
) -> Measured:
    """Builds, compares and times the implementations, ours first.

    An implementation that raises `Missing` or runs out of memory is recorded as missing. One whose result differs from
    ours by more than `tolerance` (a number, or one for each implementation) is recorded as wrong. Neither is timed. The
    order rotates by one each round, so that a peer whose threads still spin does not always slow down the same one.
    """
    clock = clock or WallClock()
    measured, contenders = Measured(), {}
    ours: Any = None
    for name, build in builders.items():
        if not selected(name):
            continue
        try:
            contender = build()
            if contender.result is not None:
                result = contender.result()
                ours = result if name == OURS else ours
                error = difference(result, ours)
                contender.details["difference_from_ours"] = error
                allowed = tolerance if isinstance(tolerance, float) else tolerance[name]
                if not error <= allowed:
                    measured.wrong[name] = f"its result differs from ours by {error:.3g}; allowed {allowed:.3g}"
                    continue
                del result
            for _ in range(warm_up):
                contender.call()
        except (Missing, pytest.skip.Exception) as reason:
            measured.missing[name] = str(reason)
            if name == OURS:
                break
        except torch.OutOfMemoryError:
            measured.missing[name] = "out of memory"
        except Exception as error:
            # A peer that fails must not lose the others' times; its own test fails.
            if name == OURS:
                raise
            measured.wrong[name] = f"{type(error).__name__}: {error}"
        else:
            contenders[name] = contender
    if OURS not in contenders:
        pytest.skip(f"ours cannot run: {measured.missing[OURS]}")
    gc.collect()
    gc.disable()
    try:
        measured.seconds = _timed_in_turn(contenders, QUICK_ROUNDS if quick else rounds, clock, measured.missing)
    finally:
        gc.enable()
    measured.details = {name: contenders[name].details for name in measured.seconds}
    return measured


def _timed_in_turn(
    contenders: Mapping[str, Contender], rounds: int, clock: Callable[[Call], float], missing: dict[str, str]
) -> dict[str, list[float]]:
    """Seconds of each round. A peer that runs out of memory beside the others goes to `missing`."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for names in _orders(list(contenders), rounds):
        for name in names:
            if name in missing:
                continue
            try:
                seconds[name].append(clock(contenders[name].call) / contenders[name].calls)
            except torch.OutOfMemoryError:
                if name == OURS:
                    raise
                missing[name] = "out of memory beside the others"
    return {name: times for name, times in seconds.items() if name not in missing}


def _orders(names: list[str], rounds: int) -> Iterator[list[str]]:
    for i in range(rounds):
        turn = i % len(names)
        yield names[turn:] + names[:turn]


class Replay:
    """A clock for pytest-benchmark that replays measured times: each `call` advances it by the next one."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps: Iterator[float] = iter(())

    def __call__(self) -> float:
        return self.now

    def call(self) -> None:
        self.now += next(self.steps)


_replay = Replay()

replayed = pytest.mark.benchmark(timer=_replay, disable_gc=False, warmup=False)
"""Marks the tests that call `publish`."""


def publish(
    benchmark: Any,
    measured: Measured,
    name: str,
    *,
    op: str,
    device: str,
    label: str,
    case: str | None = None,
    **facts: object,
) -> None:
    """Gives pytest-benchmark the times of the implementation `name`, the facts of the case, and its ratio to ours.

    Implementations with the same `op`, `device` (`cuda.cuda_label` or `machine.cpu_label`) and `label` share a table.
    Reports look for `case`, which is the label unless stated. Skips what could not run; fails what computed something
    else.
    """
    if name in measured.missing:
        pytest.skip(measured.missing[name])
    if name in measured.wrong:
        pytest.fail(f"{name}: {measured.wrong[name]}")
    times = measured.seconds[name]
    benchmark.group = f"{op}, {device}, {label}"
    benchmark.extra_info.update(op=op, case=case or label, implementation=name)
    benchmark.extra_info.update(measured.facts | measured.details[name] | facts)
    median = statistics.median(times)
    benchmark.extra_info["ours_is_faster_by"] = median / statistics.median(measured.seconds[OURS])
    benchmark.extra_info["ours_is_faster_by_fastest"] = min(times) / min(measured.seconds[OURS])
    limit = limit_seconds(measured.facts)
    if limit is not None:
        benchmark.extra_info["fraction_of_limit"] = limit / median
    _replay.now, _replay.steps = 0.0, iter(times)
    benchmark.pedantic(_replay.call, rounds=len(times), iterations=1)


def limit_seconds(facts: Mapping[str, Any]) -> float | None:
    """The minimum time for the counted FLOPs and bytes at the rates measured in the same run; None if not counted."""
    if not {"flops", "bytes", "matmul_flops_per_s", "copy_bytes_per_s"} <= facts.keys():
        return None
    return max(facts["flops"] / facts["matmul_flops_per_s"], facts["bytes"] / facts["copy_bytes_per_s"])


def median_seconds(call: Call, rounds: int, clock: Callable[[Call], float] | None = None) -> float:
    """Median time of one call."""
    return statistics.median((clock or WallClock())(call) for _ in range(rounds))
