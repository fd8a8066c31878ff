"""The back ends of BF16AdamW, where each can run, and why the others cannot. Their dtype is that of the moments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from reserve_kernels import native
from reserve_kernels.adamw.native import MOMENTS, adamw_native_
from reserve_kernels.adamw.reference import Settings, adamw_reference_
from reserve_kernels.backends import Backend, Backends, runs_anywhere

Tensors = Sequence[torch.Tensor]


@dataclass(frozen=True)
class AdamwBackend(Backend):
    """A back end of BF16AdamW."""

    step: Callable[[Tensors, Tensors, Tensors, Tensors, Tensors, Settings, Sequence[int], Sequence[int]], None]
    """(weights, gradients, m, v, starts, settings, keys, firsts): the in-place update of `adamw_reference_`"""
    takes_strided: bool = False
    """Whether weights and moments may have any strides."""


def cpu_unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """None if the native CPU step runs."""
    if device.type != "cpu":
        return "it runs on the CPU only"
    return _unsupported_moments(dtype) or native.cpu_unavailable()


def cuda_unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """None if the CUDA step runs."""
    if device.type != "cuda":
        return "it runs on a CUDA GPU only"
    return _unsupported_moments(dtype) or native.cuda_unavailable()


def _unsupported_moments(dtype: torch.dtype) -> str | None:
    return None if dtype in MOMENTS else "its moments are float32 or bfloat16"


BACKENDS = Backends(
    "BF16AdamW",
    AdamwBackend("native", cpu_unavailable, adamw_native_),
    AdamwBackend("cuda", cuda_unavailable, adamw_native_),
    AdamwBackend("reference", runs_anywhere, adamw_reference_, takes_strided=True),
)
