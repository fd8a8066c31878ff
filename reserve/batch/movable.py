"""Batches that move between devices as one."""

from __future__ import annotations

from dataclasses import fields
from typing import Self

import torch


class Movable:
    """A dataclass of tensors and plain values that moves between devices as one."""

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """A copy on `device`; what is no tensor is shared."""

        def move(value):
            return value.to(device, non_blocking=non_blocking) if isinstance(value, torch.Tensor | Movable) else value

        return type(self)(**{f.name: move(getattr(self, f.name)) for f in fields(self)})  # type: ignore[arg-type]

    def pin_memory(self) -> Self:
        """A copy whose tensors are in pinned memory, for copies to a GPU that do not block."""

        def pin(value):
            return value.pin_memory() if isinstance(value, torch.Tensor | Movable) else value

        return type(self)(**{f.name: pin(getattr(self, f.name)) for f in fields(self)})  # type: ignore[arg-type]
