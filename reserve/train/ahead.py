"""Completing batches on a GPU beside the step that runs there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from reserve.batch.movable import Movable

Finish = Callable[[Any], Movable]
"""What completes a batch; see `reserve.tasks.task.Task.finish`."""


def beside_the_step(finish: Finish, device: torch.device) -> Finish:
    """`finish`, to be called in another thread than the step: on a GPU it works on a stream of its own, and what it
    returns is done there."""
    return finish if device.type != "cuda" else _OnItsOwnStream(finish, device)


class _OnItsOwnStream:
    def __init__(self, finish: Finish, device: torch.device) -> None:
        self._finish = finish
        self._main = torch.cuda.current_stream(device)
        self._stream = torch.cuda.Stream(device)

    def __call__(self, batch: Any) -> Movable:
        # The current device and stream are those of a thread.
        with torch.cuda.device(self._stream.device), torch.cuda.stream(self._stream):
            finished = self._finish(batch)
        self._stream.synchronize()
        for tensor in finished.tensors():
            if tensor.is_cuda:
                # Its memory must not go back to this stream while the step's still reads it.
                tensor.record_stream(self._main)
        return finished
