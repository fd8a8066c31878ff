"""Which implementations of rotary_attention can run where, and why not the others. Imports none of them."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable

import torch

from reserve_kernels.backends import Backend, runs_anywhere

HALF = (torch.float16, torch.bfloat16)


INSTALLED = {
    "triton": importlib.util.find_spec("triton") is not None,
    "flash-attn": importlib.util.find_spec("flash_attn") is not None,
    "xformers": importlib.util.find_spec("xformers") is not None,
    "torch.nn.attention.varlen": importlib.util.find_spec("torch.nn.attention.varlen") is not None,
}
"""Which libraries there are: looked up once, since a compiled call cannot look."""


def _needs_ampere(device: torch.device) -> str | None:
    if device.type != "cuda":
        return "it needs a CUDA device"
    properties = torch.cuda.get_device_properties(device)
    if properties.major >= 8:
        return None
    return f"it needs compute capability 8.0; this device has {properties.major}.{properties.minor}"


def triton_unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """None where the Triton kernels run: on CUDA, and anywhere when Triton interprets (TRITON_INTERPRET=1)."""
    if not INSTALLED["triton"]:
        return "triton is not installed"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return "it computes in float32" if dtype == torch.float64 else None
    if dtype not in HALF:
        return "it takes float16 and bfloat16 only: tensor cores would cut float32"
    return _needs_ampere(device)


def _peer(package: str) -> Callable[[torch.device, torch.dtype], str | None]:
    def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
        if not INSTALLED[package]:
            return f"{package} is not installed"
        if dtype not in HALF:
            return "it takes float16 and bfloat16 only"
        return _needs_ampere(device)

    return unavailable


def _sdpa_kernel_unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    if dtype not in HALF:
        return "it is for float16 and bfloat16"
    return _needs_ampere(device)


IMPLEMENTATIONS = (
    Backend("triton", triton_unavailable),
    Backend("flash_attn", _peer("flash-attn")),
    Backend("varlen", _peer("torch.nn.attention.varlen")),
    Backend("xformers", _peer("xformers")),
    Backend("sdpa", runs_anywhere),
    Backend("sdpa_cudnn", _sdpa_kernel_unavailable),
    Backend("sdpa_efficient", _sdpa_kernel_unavailable),
    Backend("reference", runs_anywhere),
)
"""In the order in which "auto" takes the first that can run."""

COMPOSED = frozenset({"flash_attn", "varlen", "xformers", "sdpa_cudnn", "sdpa_efficient"})
"""Those made of differentiable calls of other libraries, with the position applied before them."""
