"""Batches that move between devices as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Self

import torch


class Movable:
    """A dataclass of tensors and plain values that moves between devices as a whole."""

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """A copy on `device`. Values that are not tensors are shared."""

        def move(value):
            return value.to(device, non_blocking=non_blocking) if isinstance(value, torch.Tensor | Movable) else value

        return type(self)(**{f.name: move(getattr(self, f.name)) for f in fields(self)})  # type: ignore[arg-type]

    def tensors(self) -> Iterator[torch.Tensor]:
        """Its tensors, those of nested ones included."""
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Movable):
                yield from value.tensors()
            elif isinstance(value, torch.Tensor):
                yield value

    def pin_memory(self) -> Self:
        """A copy with its tensors in pinned memory, for non-blocking transfers to a GPU."""

        def pin(value):
            return value.pin_memory() if isinstance(value, torch.Tensor | Movable) else value

        return type(self)(**{f.name: pin(getattr(self, f.name)) for f in fields(self)})  # type: ignore[arg-type]
