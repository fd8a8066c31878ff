"""Where Triton kernels that compute in float32 run, and why they do not run elsewhere."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os

import torch

from reserve_kernels.backends import below_ampere

TRITON_INSTALLED = importlib.util.find_spec("triton") is not None
"""Looked up once: a call that is being compiled cannot look, and a look costs more than a small call."""


def triton_unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """None if the kernels run: on CUDA, and anywhere when Triton interprets (TRITON_INTERPRET=1). Otherwise the reason.

    Triton is imported once a process, but never by a call that is being compiled.
    """
    if dtype == torch.float64:
        return "it computes in float32"
    if not TRITON_INSTALLED:
        return "triton is not installed"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return None
    return below_ampere(device) or (None if torch.compiler.is_compiling() else _import_error())


@functools.cache
def _import_error() -> str | None:
    try:
        importlib.import_module("triton")
    except Exception as error:  # a library built for another PyTorch fails in many ways
        return f"triton is installed and cannot be imported: {type(error).__name__}: {error}".partition("\n")[0]
    return None
