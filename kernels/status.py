"""The table of all back ends: what can run on this machine, what is picked, and why not the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from reserve_kernels.registry import OPS


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
