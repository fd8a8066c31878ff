"""An op's back ends, and how one is picked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch


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


def below_ampere(device: torch.device) -> str | None:
    """None if `device` is a GPU of compute capability 8.0 or more; otherwise the reason."""
    if device.type != "cuda":
        return "it needs a CUDA device"
    # Tensors under FakeTensorMode can be on a GPU that the machine lacks.
    if not torch.cuda.is_available():
        return "PyTorch sees no CUDA device"
    properties = torch.cuda.get_device_properties(device)
    if properties.major >= 8:
        return None
    return f"it needs compute capability 8.0; this device has {properties.major}.{properties.minor}"


def runs_anywhere(device: torch.device, dtype: torch.dtype) -> str | None:
    """The `unavailable` of a back end without requirements."""
    return None
