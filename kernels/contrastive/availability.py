"""The back ends of contrastive_loss, where each can run, and why the others cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from reserve_kernels.backends import Backend, Backends, runs_anywhere
from reserve_kernels.contrastive import blocks
from reserve_kernels.contrastive.blocks import (
    Four,
    Three,
    logsumexp_blocks_backward,
    logsumexp_chunked,
    logsumexp_dense,
)
from reserve_kernels.contrastive.reference import Scaling, logsumexp_reference, logsumexp_reference_backward
from reserve_kernels.triton_support import triton_unavailable


def _nothing(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x.new_empty(0)


def _no_bytes(x: torch.Tensor, y: torch.Tensor) -> int:
    return 0


@dataclass(frozen=True)
class ContrastiveBackend(Backend):
    """A back end of contrastive_loss: both passes of `ops.contrastive_logsumexp`."""

    forward: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, bool, Scaling], Four]
    """(x, y, log_scale, both, scaling) -> what `logsumexp_reference` returns, and what is stored for the backward
    pass"""
    backward: Callable[
        [Three, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, bool, Scaling],
        Three,
    ]
    """(gradients of the three outputs, x, y, log_scale, row_lse, column_lse, what is stored, both, scaling) -> those of
    x, y and log_scale"""
    stored: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = _nothing
    """(x, y) -> a tensor with the shape and dtype of what is stored"""
    stored_bytes: Callable[[torch.Tensor, torch.Tensor], int] = _no_bytes
    """(x, y) -> the size of what is stored, or a little more"""

    @property
    def stores_logits(self) -> bool:
        return self.stored is not _nothing


def _reference_forward(x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor, both: bool, scaling: Scaling) -> Four:
    return *logsumexp_reference(x, y, log_scale, both, scaling), x.new_empty(0)


def _reference_backward(
    grads: Three,
    x: torch.Tensor,
    y: torch.Tensor,
    log_scale: torch.Tensor,
    row_lse: torch.Tensor,
    column_lse: torch.Tensor,
    _stored: torch.Tensor,
    both: bool,
    scaling: Scaling,
) -> Three:
    return logsumexp_reference_backward(grads, x, y, log_scale, row_lse, column_lse, both, scaling)


def _triton_forward(x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor, both: bool, scaling: Scaling) -> Four:
    from reserve_kernels.contrastive.triton import logsumexp_triton

    return *logsumexp_triton(x, y, log_scale, both, scaling), x.new_empty(0)


def _triton_backward(
    grads: Three,
    x: torch.Tensor,
    y: torch.Tensor,
    log_scale: torch.Tensor,
    row_lse: torch.Tensor,
    column_lse: torch.Tensor,
    _stored: torch.Tensor,
    both: bool,
    scaling: Scaling,
) -> Three:
    from reserve_kernels.contrastive.triton import logsumexp_triton_backward

    return logsumexp_triton_backward(grads, x, y, log_scale, row_lse, column_lse, None, both, scaling)


def _dense_by_triton(x: torch.Tensor) -> bool:
    """Whether "dense" runs Triton's kernels; elsewhere it is the CPU's passes or PyTorch."""
    return triton_unavailable(x.device, x.dtype) is None


def _dense_stored(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    if not _dense_by_triton(x):
        return blocks.stored_memory(x, y)
    from reserve_kernels.contrastive.triton import stored_memory

    return stored_memory(x, y)


def _dense_stored_bytes(x: torch.Tensor, y: torch.Tensor) -> int:
    return triton_stored_bytes(x, y) if _dense_by_triton(x) else blocks.stored_bytes(x, y)


def triton_stored_bytes(x: torch.Tensor, y: torch.Tensor) -> int:
    """At least the size of what "dense" stores by Triton, by arithmetic alone: it is asked while a call is compiled,
    when nothing may import Triton or look at the device.
    """
    n, m = max(x.shape[0], y.shape[0]), min(x.shape[0], y.shape[0])
    itemsize = 4 if x.dtype == torch.float32 else 2
    # Rows are padded to 16 logits. Tiles have at least 64 rows and columns, and a float32 logsumexp for each of both.
    return n * -(-m // 16) * 16 * itemsize + (2 * (n * m // 64) + n + m) * 4


def _dense_forward(x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor, both: bool, scaling: Scaling) -> Four:
    if not _dense_by_triton(x):
        return logsumexp_dense(x, y, log_scale, both, scaling)
    from reserve_kernels.contrastive.triton import logsumexp_triton_dense

    return logsumexp_triton_dense(x, y, log_scale, both, scaling)


def _dense_backward(
    grads: Three,
    x: torch.Tensor,
    y: torch.Tensor,
    log_scale: torch.Tensor,
    row_lse: torch.Tensor,
    column_lse: torch.Tensor,
    stored: torch.Tensor,
    both: bool,
    scaling: Scaling,
) -> Three:
    if not _dense_by_triton(x):
        return logsumexp_blocks_backward(grads, x, y, log_scale, row_lse, column_lse, stored, both, scaling)
    from reserve_kernels.contrastive.triton import logsumexp_triton_backward

    return logsumexp_triton_backward(grads, x, y, log_scale, row_lse, column_lse, stored, both, scaling)


BACKENDS = Backends(
    "contrastive_loss",
    ContrastiveBackend("dense", runs_anywhere, _dense_forward, _dense_backward, _dense_stored, _dense_stored_bytes),
    ContrastiveBackend("triton", triton_unavailable, _triton_forward, _triton_backward),
    ContrastiveBackend("chunked", runs_anywhere, logsumexp_chunked, logsumexp_blocks_backward),
    ContrastiveBackend("reference", runs_anywhere, _reference_forward, _reference_backward),
)
