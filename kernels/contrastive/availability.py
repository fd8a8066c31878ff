"""The back ends of contrastive_loss, where each can run, and why the others cannot."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch

from reserve_kernels.backends import Backend, Backends, runs_anywhere
from reserve_kernels.contrastive.chunked import logsumexp_chunked, logsumexp_chunked_backward
from reserve_kernels.contrastive.reference import logsumexp_reference, logsumexp_reference_backward

Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class ContrastiveBackend(Backend):
    """A back end of contrastive_loss: both passes of `ops.contrastive_logsumexp`."""

    forward: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, bool], Three]
    """(x, y, log_scale, both) -> what `logsumexp_reference` returns"""
    backward: Callable[
        [Three, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, bool],
        Three,
    ]
    """(gradients of the three outputs, x, y, log_scale, row_lse, column_lse, both) -> those of x, y and log_scale"""


TRITON_INSTALLED = importlib.util.find_spec("triton") is not None
"""Looked up once, since a call that is being compiled cannot look."""


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
    if torch.cuda.get_device_properties(device).major < 8:
        return "it needs compute capability 8.0"
    return None


def _triton_forward(x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor, both: bool) -> Three:
    from reserve_kernels.contrastive.triton import logsumexp_triton

    return logsumexp_triton(x, y, log_scale, both)


def _triton_backward(
    grads: Three,
    x: torch.Tensor,
    y: torch.Tensor,
    log_scale: torch.Tensor,
    row_lse: torch.Tensor,
    column_lse: torch.Tensor,
    both: bool,
) -> Three:
    from reserve_kernels.contrastive.triton import logsumexp_triton_backward

    return logsumexp_triton_backward(grads, x, y, log_scale, row_lse, column_lse, both)


BACKENDS = Backends(
    "contrastive_loss",
    ContrastiveBackend("triton", triton_unavailable, _triton_forward, _triton_backward),
    ContrastiveBackend("chunked", runs_anywhere, logsumexp_chunked, logsumexp_chunked_backward),
    ContrastiveBackend("reference", runs_anywhere, logsumexp_reference, logsumexp_reference_backward),
)
