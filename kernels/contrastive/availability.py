"""The back ends of contrastive_loss, where each can run, and why the others cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from reserve_kernels.backends import Backend, Backends, runs_anywhere
from reserve_kernels.contrastive.chunked import logsumexp_chunked, logsumexp_chunked_backward
from reserve_kernels.contrastive.reference import logsumexp_reference, logsumexp_reference_backward
from reserve_kernels.triton_support import triton_unavailable

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
