"""Torch's default dtype and device, changed for a while as a program around ours may do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

OTHER_DTYPES = (torch.float16, torch.bfloat16, torch.float64)


@contextmanager
def torch_defaults(dtype: torch.dtype = torch.float32, device: str | None = None) -> Iterator[None]:
    """A context in which `dtype` and `device` are torch's defaults."""
    torch.set_default_dtype(dtype)
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
