"""Constants on a GPU: windows, filters and tables, each made once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar, cast

import torch

Made = TypeVar("Made")

_ON_DEVICES: dict[tuple[torch.device, Hashable], object] = {}


def kept_on(device: torch.device, key: Hashable, make: Callable[[], Made]) -> Made:
    """What `make` puts on `device` at the first call with `key`; on the CPU it is made each time.

    It is never freed. After its call has returned, a kernel may still be queued that reads it, in another stream than
    the one it was made in, where the caching allocator would hand its memory out again; and a captured CUDA graph
    reads it at every replay. Each set of parameters holds some hundred kilobytes, so that a process has to try
    thousands before it matters.

    Raises RuntimeError while a CUDA graph is captured: making waits for a copy from the CPU.
    """
    if device.type == "cpu":
        return make()
    found = _ON_DEVICES.get((device, key))
    if found is None:
        if torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                "log_mel_spectrogram must run once with the same parameters before it is captured in a CUDA graph: "
                "its constants are copied to the GPU then"
            )
        # Of threads that make the same at once, all take what the first has kept.
        found = _ON_DEVICES.setdefault((device, key), make())
    return cast(Made, found)
