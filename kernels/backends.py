"""An op's back ends: how one is picked, and the table that shows what can run on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from reserve_kernels.registry import OPS


@dataclass(frozen=True)
class Backend:
    """One implementation of an op. Each op has a subclass with the functions that its back ends carry.

    `unavailable(device, dtype)` returns None if the back end can run, and otherwise the reason as a short phrase.
    """

    name: str
    unavailable: Callable[[torch.device, torch.dtype], str | None]


AnyBackend = TypeVar("AnyBackend", bound=Backend)


class Backends(Generic[AnyBackend]):
    """The back ends of the op `op`, in the order in which "auto" tries them. The last one must run anywhere."""

    def __init__(self, op: str, *backends: AnyBackend) -> None:
        self.op = op
        self._backends = backends

    def __iter__(self) -> Iterator[AnyBackend]:
        return iter(self._backends)

    def __getitem__(self, name: str) -> AnyBackend:
        """The back end `name`. Raises ValueError if there is none."""
        for backend in self._backends:
            if backend.name == name:
                return backend
        allowed = ", ".join(repr(backend.name) for backend in self._backends)
        raise ValueError(f"{self.op}: backend must be 'auto' or one of {allowed}; got {name!r}")

    def choose(
        self,
        requested: str,
        device: torch.device,
        dtype: torch.dtype,
        refuse: Callable[[AnyBackend], str | None] | None = None,
    ) -> AnyBackend:
        """The back end to run.

        Args:
            requested: "auto" for the first that can run, or the name of one.
            refuse: returns a reason if a back end that runs on this device and dtype cannot run this call's arguments.

        Raises:
            ValueError: there is no back end of that name.
            RuntimeError: the named back end cannot run; the message says why.
        """
        if requested != "auto":
            backend = self[requested]
            reason = backend.unavailable(device, dtype)
            if reason is not None:
                raise RuntimeError(
                    f"{self.op}: backend {requested!r} cannot run on {device.type} with {dtype}: {reason}"
                )
            reason = None if refuse is None else refuse(backend)
            if reason is not None:
                raise RuntimeError(f"{self.op}: backend {requested!r} cannot run: {reason}")
            return backend
        for backend in self._backends:
            if backend.unavailable(device, dtype) is None and (refuse is None or refuse(backend) is None):
                return backend
        raise AssertionError(f"{self.op}: no back end runs on {device.type} with {dtype}")


@dataclass(frozen=True)
class BackendStatus:
    """One row of the table of `backends()`: `reason` is empty if the back end can run."""

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

    Covers the CPU and, if there is one, the CUDA device. `print(backends())` shows it as a table.
    """
    devices = [torch.device("cpu")] + ([torch.device("cuda")] if torch.cuda.is_available() else [])
    rows = []
    for op in OPS:
        for device in devices:
            picked = op.backends.choose("auto", device, dtype)
            rows += [
                BackendStatus(op.name, b.name, device.type, b is picked, b.unavailable(device, dtype) or "")
                for b in op.backends
            ]
    return BackendTable(rows)


def runs_anywhere(device: torch.device, dtype: torch.dtype) -> str | None:
    """The `unavailable` of a back end without requirements."""
    return None
