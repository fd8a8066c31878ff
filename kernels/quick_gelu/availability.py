"""The back ends of bias_quick_gelu, where each can run, and why the others cannot."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch

from reserve_kernels import native
from reserve_kernels.backends import Backend, Backends, runs_anywhere
from reserve_kernels.quick_gelu.native import DTYPES, quick_gelu_native, quick_gelu_native_backward
from reserve_kernels.quick_gelu.reference import quick_gelu_reference, quick_gelu_reference_backward

TRITON_INSTALLED = importlib.util.find_spec("triton") is not None
"""Looked up once: a look at the file system costs more than a small call."""


@dataclass(frozen=True)
class QuickGeluBackend(Backend):
    """A back end of bias_quick_gelu: both passes, of tensors that are not empty and have any strides."""

    forward: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]
    """(x, bias) -> the result, contiguous, as `quick_gelu_reference`"""
    backward: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], tuple[torch.Tensor, torch.Tensor]]
    """(grad, x, bias) -> the gradients of x and bias, as `quick_gelu_reference_backward`"""


def triton_unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """None if the Triton kernels run: on CUDA, and anywhere when Triton interprets (TRITON_INTERPRET=1)."""
    if dtype == torch.float64:
        return "it computes in float32"
    if not TRITON_INSTALLED:
        return "triton is not installed"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return None
    if device.type != "cuda":
        return "it needs a CUDA device"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "it needs compute capability 8.0"
    return _import_error()


@functools.cache
def _import_error() -> str | None:
    """Why the installed Triton cannot be imported, or None; the choice is made inside the op, never while compiling."""
    try:
        importlib.import_module("triton")
    except Exception as error:  # a library built for another PyTorch fails in many ways
        return f"triton is installed and cannot be imported: {type(error).__name__}: {error}".partition("\n")[0]
    return None


def native_unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """None if the native CPU passes run."""
    if device.type != "cpu":
        return "it runs on the CPU only"
    if dtype not in DTYPES:
        return "it takes float32 and bfloat16 only"
    return native.cpu_unavailable()


def _triton_forward(x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    from reserve_kernels.quick_gelu.triton import quick_gelu_triton

    return quick_gelu_triton(x, bias)


def _triton_backward(
    grad: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    from reserve_kernels.quick_gelu.triton import quick_gelu_triton_backward

    return quick_gelu_triton_backward(grad, x, bias)


BACKENDS = Backends(
    "bias_quick_gelu",
    QuickGeluBackend("triton", triton_unavailable, _triton_forward, _triton_backward),
    QuickGeluBackend("native", native_unavailable, quick_gelu_native, quick_gelu_native_backward),
    QuickGeluBackend("reference", runs_anywhere, quick_gelu_reference, quick_gelu_reference_backward),
)
