"""What a benchmark of an op consists of, and how it is run."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch

from reserve_kernels.bench.interleaved import (
    OURS,
    Contender,
    EventClock,
    Measured,
    Missing,
    WallClock,
    measure,
)

REST, LASTING = 0.01, 0.02
"""Seconds."""

Builders = Mapping[str, Callable[[], Contender]]


@dataclass(frozen=True)
class Case:
    """One job, by our op and by others.

    `builders` make each implementation; the one called OURS is ours. `difference` of a result and ours must be at most
    `tolerance`. `group` and `name` say what it is, in the tables' words.
    """

    group: str
    name: str
    builders: Builders
    difference: Callable[[Any, Any], float]
    tolerance: float
    facts: Mapping[str, Any] = field(default_factory=dict)


def loops(device: torch.device) -> dict[str, float]:
    """How calls are timed on `device`, as it is stored: in loops on a CPU, alone on a GPU."""
    return {"rest_seconds": REST, "loop_seconds": LASTING} if device.type == "cpu" else {}


def run(
    case: Case,
    *,
    rounds: int,
    threads: int,
    device: torch.device,
    only: Callable[[str], object] | None = None,
) -> Measured:
    """Times `case` with that many threads; of the peers those for whose name `only` is true. Raises Missing.

    On a GPU by events, with the L2 cache flushed before each call. On a CPU in loops that last LASTING after a REST.
    """
    chosen = {name: build for name, build in case.builders.items() if name == OURS or only is None or only(name)}
    clock = EventClock() if device.type == "cuda" else WallClock(rest=REST, lasting=LASTING)
    with threads_of_everything(threads):
        measured = measure(chosen, rounds=rounds, difference=case.difference, tolerance=case.tolerance, clock=clock)
    measured.facts = dict(case.facts)
    return measured


@contextlib.contextmanager
def threads_of_everything(threads: int) -> Iterator[None]:
    """PyTorch, which our CPU ops follow, and where threadpoolctl is installed NumPy's BLAS, with `threads` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with _blas_threads(threads):
            yield
    finally:
        torch.set_num_threads(before)


def _blas_threads(threads: int) -> contextlib.AbstractContextManager[Any]:
    try:
        from threadpoolctl import threadpool_limits
    except ModuleNotFoundError:
        return contextlib.nullcontext()
    # More BLAS threads than these would spin when idle and slow the others down.
    return threadpool_limits(threads, user_api="blas")


def module(name: str) -> ModuleType:
    """The module, or Missing if it cannot be imported, for whatever reason."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # libraries built for another PyTorch fail in many ways
        raise Missing(f"{name} cannot be imported: {type(error).__name__}: {error}".partition("\n")[0]) from error


def largest_difference(out: torch.Tensor, ours: torch.Tensor) -> float:
    """The largest absolute difference of two tensors of the same shape."""
    if out.shape != ours.shape:
        return float("inf")
    return float((out.double() - ours.double()).abs().max()) if out.numel() else 0.0
