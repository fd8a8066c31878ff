"""The passes of contrastive_loss by the native library: float32 on the CPU."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from reserve_kernels import native
from reserve_kernels.contrastive.passes import Columns, Passes, Softmaxes
from reserve_kernels.contrastive.reference import EPSILON, STANDARD, Scaling, squares_limit
from reserve_kernels.native import ContrastiveLogsumexp, ContrastivePass, ContrastiveScale, ContrastiveWeights

LIMIT = squares_limit(torch.float32)


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """None if the native passes run on statistics of this dtype."""
    if device.type != "cpu":
        return "it runs on the CPU only"
    if dtype != torch.float32:
        return "it computes in float32"
    return native.cpu_unavailable()


class NativePasses(Passes):
    """The passes by the native library, but for the scaling of half-precision vectors, and scaling by one factor."""

    def __init__(self, run: Callable[[ContrastivePass], None] | None = None, scaling: Scaling = STANDARD) -> None:
        """`run` replaces the library's own choice of threads and instructions, for tests."""
        super().__init__(scaling)
        self.run = run or _run

    def scale(self, x: torch.Tensor, log_scale: torch.Tensor, out: torch.Tensor) -> None:
        if x.dtype != torch.float32 or not self.scaling.normalize:
            super().scale(x, log_scale, out)
            return
        x = x.contiguous()  # The name keeps the memory alive that the pointer is to.
        pointers = (x.data_ptr(), None, out.data_ptr(), None)
        self.run(ContrastiveScale(*pointers, *x.shape, self._factor(log_scale), 0.0, EPSILON, LIMIT))

    def scale_backward(
        self, grad: torch.Tensor, x: torch.Tensor, log_scale: torch.Tensor, out: torch.Tensor, shares: torch.Tensor
    ) -> None:
        # The library leaves the shares of rows without numbers as they are.
        if x.dtype != torch.float32 or not self.scaling.normalize or x.shape[1] == 0:
            super().scale_backward(grad, x, log_scale, out, shares)
            return
        x, factor = x.contiguous(), self._factor(log_scale)
        # A clamped temperature has no gradient. PyTorch compares in float32: the bound itself is inside.
        of_factor = factor / 2 if log_scale <= self.scaling.max_log_scale else 0.0
        pointers = (x.data_ptr(), grad.data_ptr(), out.data_ptr(), shares.data_ptr())
        self.run(ContrastiveScale(*pointers, *x.shape, factor, of_factor, EPSILON, LIMIT))

    def _factor(self, log_scale: torch.Tensor) -> float:
        """The temperature's share of one side."""
        # float32 ends at exp(89), and math.exp raises an error at 710.
        return math.exp(min(log_scale.item(), self.scaling.max_log_scale, 1000.0) / 2)

    def logsumexp(
        self,
        logits: torch.Tensor,
        first: int,
        row_lse: torch.Tensor | None,
        columns: Columns | None,
        diagonal: torch.Tensor | None,
        bounded: bool,
        store: bool,
    ) -> None:
        sums, maxima = (None, None) if columns is None else (columns.sums, columns.maxima)
        pointers = map(_pointer, (logits, row_lse, sums, maxima, diagonal))
        self.run(ContrastiveLogsumexp(*pointers, *logits.shape, first, bounded, store and bounded))

    def weights(
        self,
        logits: torch.Tensor,
        out: torch.Tensor,
        first: int,
        softmaxes: Softmaxes,
        bounded: bool,
        exponentiated: bool,
    ) -> None:
        s = softmaxes
        values = (s.row_grad, s.row_lse, s.column_grad, s.column_lse, s.diagonal_grad)
        pointers = map(_pointer, (logits, out, *values))
        self.run(ContrastiveWeights(*pointers, *logits.shape, first, bounded, exponentiated))


def _pointer(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _run(problem: ContrastivePass) -> None:
    native.library().contrastive_cpu(problem, torch.get_num_threads())
