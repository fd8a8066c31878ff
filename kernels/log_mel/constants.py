"""A cache of constants on GPUs: windows, filters and tables."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar, cast

import torch

Constant = TypeVar("Constant")

_ON_DEVICES: dict[tuple[torch.device, Hashable], object] = {}


def kept_on(device: torch.device, key: Hashable, make: Callable[[], Constant]) -> Constant:
    """What `make` returned at the first call with `key` on `device`. On the CPU nothing is cached.

    The cache never frees anything. After a call has returned, a kernel that reads the constant may still be queued on
    a stream other than the one it was made on, where the caching allocator would reuse its memory; and a captured CUDA
    graph reads it at every replay. Each set of parameters takes some hundred kilobytes.

    Raises RuntimeError while a CUDA graph is being captured: `make` waits for a copy from the CPU.
    """
    if device.type == "cpu":
        return make()
    found = _ON_DEVICES.get((device, key))
    if found is None:
        if torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                "log_mel_spectrogram must run once with the same parameters before a CUDA graph captures it: "
                "the first run copies constants to the GPU"
            )
        # If several threads make it at once, all use the one that was stored first.
        found = _ON_DEVICES.setdefault((device, key), make())
    return cast(Constant, found)
