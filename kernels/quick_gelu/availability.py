"""The back ends of bias_quick_gelu, where each can run, and why the others cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from reserve_kernels import native
from reserve_kernels.backends import Backend, Backends, runs_anywhere
from reserve_kernels.quick_gelu.native import DTYPES, quick_gelu_native, quick_gelu_native_backward
from reserve_kernels.quick_gelu.reference import quick_gelu_reference, quick_gelu_reference_backward
from reserve_kernels.triton_support import triton_unavailable


@dataclass(frozen=True)
class QuickGeluBackend(Backend):
    """A back end of bias_quick_gelu: both passes, of tensors that are not empty and have any strides."""

    forward: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]
    """(x, bias) -> the result, contiguous, as `quick_gelu_reference`"""
    backward: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], tuple[torch.Tensor, torch.Tensor]]
    """(grad, x, bias) -> the gradients of x and bias, as `quick_gelu_reference_backward`"""


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
