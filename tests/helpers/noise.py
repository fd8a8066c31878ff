"""A training set of random tensors, for loading processes of tests."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from reserve.batch.movable import Movable


class Noise:
    """Random tensors, each drawn from its key."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> torch.Tensor:
        return torch.from_numpy(np.random.default_rng(key).random(5000))


def stack(examples: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(examples))


@dataclass
class Pinnable(Movable):
    """A batch that says in which thread its memory was pinned."""

    content: torch.Tensor
    pinned_by: str = ""

    def pin_memory(self) -> Pinnable:
        return Pinnable(self.content, threading.current_thread().name)


def pinnable(examples) -> Pinnable:
    return Pinnable(stack(examples))
