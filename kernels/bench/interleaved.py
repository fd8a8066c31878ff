"""Times the implementations of a case interleaved.

All implementations of a case are built, compared with ours, and timed together. Every round runs each of them once, so
that a slowdown of the machine affects all of them.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

Call = Callable[[], object]

OURS = "reserve"
"""Name of this project's implementation."""


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


class WallClock:
    """Seconds that a call takes, by the host's clock.

    `rest` seconds pass before: the threads of PyTorch's parallel loops wait for more work for some milliseconds, and
    slow down whatever else runs. Then the call repeats, with its input in the cache, until `lasting` seconds are over.
    """

    def __init__(self, *, rest: float = 0.0, lasting: float = 0.0) -> None:
        self.rest, self.lasting = rest, lasting

    def __call__(self, call: Call) -> float:
        if self.rest:
            time.sleep(self.rest)
        calls = 0
        start = end = time.perf_counter()
        while calls == 0 or end - start < self.lasting:
            call()
            calls += 1
            end = time.perf_counter()
        return (end - start) / calls


class EventClock:
    """Seconds that a call's work takes on the GPU, by events around it; the L2 cache is flushed before."""

    def __init__(self, *, flush: bool = True) -> None:
        size = torch.cuda.get_device_properties(0).L2_cache_size
        self._filler = torch.empty(2 * size, dtype=torch.int8, device="cuda") if flush else None

    def __call__(self, call: Call) -> float:
        if self._filler is not None:
            self._filler.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3


def measure(
    builders: Mapping[str, Callable[[], Contender]],
    *,
    rounds: int,
    difference: Callable[[Any, Any], float],
    tolerance: float | Mapping[str, float],
    clock: Callable[[Call], float] | None = None,
    warm_up: int = 2,
) -> Measured:
    """Builds, compares and times the implementations, ours first. Raises Missing if ours cannot run.

    An implementation that raises `Missing` or runs out of memory is recorded as missing. One whose result differs from
    ours by more than `tolerance` (a number, or one for each implementation) is recorded as wrong. Neither is timed. The
    order rotates by one each round, so that a peer whose threads still spin does not always slow down the same one.
    """
    clock = clock or WallClock()
    measured, contenders = Measured(), {}
    ours: Any = None
    for name, build in builders.items():
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
        except Missing as reason:
            if name == OURS:
                raise
            measured.missing[name] = str(reason)
        except torch.OutOfMemoryError:
            measured.missing[name] = "out of memory"
        except Exception as error:
            # A peer that fails must not lose the others' times; its own test fails.
            if name == OURS:
                raise
            measured.wrong[name] = f"{type(error).__name__}: {error}"
        else:
            contenders[name] = contender
    gc.collect()
    gc.freeze()  # so that later collections look at what the calls left alone
    gc.disable()
    try:
        measured.seconds = _timed_in_turn(contenders, rounds, clock, measured.missing)
    finally:
        gc.enable()
        gc.unfreeze()
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
            gc.collect()
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


def median_seconds(call: Call, rounds: int, clock: Callable[[Call], float] | None = None) -> float:
    """Median time of one call."""
    return statistics.median((clock or WallClock())(call) for _ in range(rounds))
