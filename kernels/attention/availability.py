"""Which implementations of rotary_attention can run where, and why not the others.

Other libraries are imported only when all else speaks for them: on a GPU, when they are installed and asked about.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable

import torch

from reserve_kernels.backends import Backend, runs_anywhere

HALF = (torch.float16, torch.bfloat16)


MODULES = {
    "triton": "triton",
    "flash-attn": "flash_attn",
    "xformers": "xformers.ops",
    "torch.nn.attention.varlen": "torch.nn.attention.varlen",
}
"""What to import of each library."""
INSTALLED = {
    library: importlib.util.find_spec(module.partition(".ops")[0]) is not None for library, module in MODULES.items()
}
"""Which libraries there are: looked up once, since a compiled call cannot look."""


@functools.cache
def _import_error(module: str) -> str | None:
    try:
        importlib.import_module(module)
    except Exception as error:  # a library built for another PyTorch fails in many ways
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return None


def _unusable(library: str) -> str | None:
    """Why `library` cannot be used, None if it can. It is tried once a process, but not by a call being compiled."""
    if not INSTALLED[library]:
        return f"{library} is not installed"
    if torch.compiler.is_compiling():
        return None
    error = _import_error(MODULES[library])
    return None if error is None else f"{library} is installed and cannot be imported: {error}"


def _needs_ampere(device: torch.device) -> str | None:
    if device.type != "cuda":
        return "it needs a CUDA device"
    if torch.version.hip is not None:
        return "it was made for NVIDIA's GPUs; this PyTorch is for AMD's"
    properties = torch.cuda.get_device_properties(device)
    if properties.major >= 8:
        return None
    return f"it needs compute capability 8.0; this device has {properties.major}.{properties.minor}"


def _needs_ampere_and_half(device: torch.device, dtype: torch.dtype) -> str | None:
    return _needs_ampere(device) or (None if dtype in HALF else "it takes float16 and bfloat16 only")


def triton_unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """None where the Triton kernels run: on CUDA, and anywhere when Triton interprets (TRITON_INTERPRET=1)."""
    if not INSTALLED["triton"]:
        return "triton is not installed"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return "it computes in float32" if dtype == torch.float64 else None
    cut = None if dtype in HALF else "it takes float16 and bfloat16 only: tensor cores would cut float32"
    return _needs_ampere(device) or cut or _unusable("triton")


def _peer(library: str) -> Callable[[torch.device, torch.dtype], str | None]:
    def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
        if not INSTALLED[library]:
            return f"{library} is not installed"
        return _needs_ampere_and_half(device, dtype) or _unusable(library)

    return unavailable


IMPLEMENTATIONS = (
    Backend("triton", triton_unavailable),
    Backend("flash_attn", _peer("flash-attn")),
    Backend("varlen", _peer("torch.nn.attention.varlen")),
    Backend("xformers", _peer("xformers")),
    Backend("sdpa", runs_anywhere),
    Backend("sdpa_cudnn", _needs_ampere_and_half),
    Backend("sdpa_efficient", _needs_ampere_and_half),
    Backend("reference", runs_anywhere),
)
"""In the order in which "auto" takes the first that can run."""

COMPOSED = frozenset({"flash_attn", "varlen", "xformers", "sdpa_cudnn", "sdpa_efficient"})
"""Those made of differentiable calls of other libraries, with the position applied before them."""
