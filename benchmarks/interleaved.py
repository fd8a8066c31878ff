"""Reports interleaved times to pytest-benchmark.

Each implementation of a case has a test of its own that reports its times, so that pytest-benchmark's tables,
histograms and comparisons show them side by side.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from reserve_kernels.bench import interleaved as core
from reserve_kernels.bench.interleaved import (
    OURS,
    Call,
    Contender,
    EventClock,
    Measured,
    Missing,
    WallClock,
    largest_relative_difference,
    median_seconds,
)

__all__ = [
    "OURS",
    "Call",
    "Contender",
    "EventClock",
    "Measured",
    "Missing",
    "WallClock",
    "largest_relative_difference",
    "limit_seconds",
    "measure",
    "median_seconds",
    "publish",
    "replayed",
    "selected",
]

only: Callable[[str], object] | None = None
"""Builds only the peers for which it is true. `--peers` sets it."""
QUICK_ROUNDS = 3
quick = False
"""A few rounds, to see whether everything runs. `--quick` sets it."""


def selected(implementation: str) -> bool:
    """Whether an implementation is built and timed: ours always, and the peers that `--peers` chose."""
    return implementation == OURS or only is None or bool(only(implementation))


def measure(builders: Mapping[str, Callable[[], Contender]], *, rounds: int, **options: Any) -> Measured:
    """`reserve_kernels.bench.interleaved.measure` of what is selected; the test is skipped if ours cannot run.

    A builder may skip, as pytest says it, to be missing.
    """

    def missing_if_skipped(build: Callable[[], Contender]) -> Callable[[], Contender]:
        def run() -> Contender:
            try:
                return build()
            except pytest.skip.Exception as reason:
                raise Missing(str(reason)) from None

        return run

    chosen = {name: missing_if_skipped(build) for name, build in builders.items() if selected(name)}
    try:
        return core.measure(chosen, rounds=QUICK_ROUNDS if quick else rounds, **options)
    except Missing as reason:
        pytest.skip(f"ours cannot run: {reason}")


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
