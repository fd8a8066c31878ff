"""Which implementations of contrastive_loss there are, and where they run."""

from __future__ import annotations

import importlib.util
import os

import torch

from reserve_kernels.backends import Backend, runs_anywhere


def triton_unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """None where the Triton kernels run: on CUDA, and anywhere when Triton interprets (TRITON_INTERPRET=1)."""
    if dtype == torch.float64:
        return "it computes in float32"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return None
    if device.type != "cuda":
        return "it needs a CUDA device"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "it needs compute capability 8.0"
    return None


IMPLEMENTATIONS = (
    Backend("triton", triton_unavailable),
    Backend("chunked", runs_anywhere),
    Backend("reference", runs_anywhere),
)
