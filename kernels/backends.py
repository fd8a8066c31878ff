"""Which implementations of each op can run on this machine, and which one runs.

Each op lists its implementations once, fastest first, as `Backend`s; `choose` picks from that list and
`backends` shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Backend:
    """One implementation of an op.

    `unavailable(device, dtype)` returns None where it can run and otherwise the reason as a short phrase.
    """

    name: str
    unavailable: Callable[[torch.device, torch.dtype], str | None]


_REGISTRY: dict[str, tuple[Backend, ...]] = {}


def register(op: str, implementations: Sequence[Backend]) -> None:
    """Declares the implementations of `op`, fastest first; the last one must run anywhere."""
    _REGISTRY[op] = tuple(implementations)


def choose(op: str, requested: str, device: torch.device, dtype: torch.dtype) -> str:
    """Name of the implementation of `op` to run.

    `requested` is "auto" (the first that can run) or the name of one.
    Raises ValueError for an unknown name, and RuntimeError with the reason for one that cannot run here.
    """
    implementations = _REGISTRY[op]
    if requested == "auto":
        return next(b.name for b in implementations if b.unavailable(device, dtype) is None)
    for backend in implementations:
        if backend.name == requested:
            reason = backend.unavailable(device, dtype)
            if reason is not None:
                raise RuntimeError(f"{op}: backend {requested!r} cannot run on {device.type} with {dtype}: {reason}")
            return requested
    allowed = ", ".join(repr(b.name) for b in implementations)
    raise ValueError(f"{op}: backend must be 'auto' or one of {allowed}; got {requested!r}")


@dataclass(frozen=True)
class BackendStatus:
    """One row of the table of `backends()`: `reason` is empty where the implementation can run."""

    op: str
    backend: str
    device: str
    picked: bool
    reason: str


class BackendTable(tuple[BackendStatus, ...]):
    """The rows, printable as an aligned table."""

    def __str__(self) -> str:
        header = ("op", "backend", "device", "status")
        rows = [(r.op, r.backend, r.device, "picked" if r.picked else r.reason or "available") for r in self]
        widths = [max(len(row[i]) for row in [header, *rows]) for i in range(4)]
        return "\n".join(
            "  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in [header, *rows]
        )

    __repr__ = __str__


def backends(dtype: torch.dtype = torch.float32) -> BackendTable:
    """What can run on this machine for tensors of `dtype`, what "auto" picks, and why the others cannot run.

    Covers the CPU and, where there is one, the CUDA device. `print(backends())` shows it as a table.
    """
    devices = [torch.device("cpu")] + ([torch.device("cuda")] if torch.cuda.is_available() else [])
    rows = []
    for op, implementations in _REGISTRY.items():
        for device in devices:
            picked = choose(op, "auto", device, dtype)
            rows += [
                BackendStatus(op, b.name, device.type, b.name == picked, b.unavailable(device, dtype) or "")
                for b in implementations
            ]
    return BackendTable(rows)


def runs_anywhere(device: torch.device, dtype: torch.dtype) -> str | None:
    """The `unavailable` of an implementation without requirements."""
    return None
