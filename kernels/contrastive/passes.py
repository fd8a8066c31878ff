"""The passes over vectors and blocks of logits between the matrix products, in PyTorch; native.py has them too."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch

from reserve_kernels.contrastive.reference import STANDARD, Scaling, scaled, scaled_backward

BLOCK_BYTES = 8 << 20
"""Size of a block of logits that are computed again in the backward pass."""


SAFE_EXPONENT = 60.0
"""The exp of a logit up to this, and a sum of 2**40 of them, fit float32 without overflow or underflow."""

WORTH_SHARING = 1 << 16
"""Number of logits from which sharing one exp is worth its rounding: the loss of a single pair is not quite 0."""


def parts(rows: int, columns: int, itemsize: int, block_bytes: int | None = None) -> Iterator[slice]:
    """Blocks of rows with about `block_bytes` (BLOCK_BYTES) of values in `columns` columns."""
    block_bytes = BLOCK_BYTES if block_bytes is None else block_bytes
    block = max(16, block_bytes // (itemsize * max(columns, 1)))
    for start in range(0, rows, block):
        yield slice(start, min(start + block, rows))


class Columns(NamedTuple):
    """Sums over rows of exp of logits, a number a column, in float64, so that not every block rounds them."""

    sums: torch.Tensor
    maxima: torch.Tensor | None
    """What is subtracted from the logits in `sums`, in their dtype; None for bounded logits: nothing."""

    @classmethod
    def empty(cls, columns: int, like: torch.Tensor, bounded: bool) -> Columns:
        """The sums over no rows of logits with the dtype and device of `like`."""
        sums = torch.zeros(columns, dtype=torch.float64, device=like.device)
        return cls(sums, None if bounded else like.new_full((columns,), torch.finfo(like.dtype).min))

    def logsumexp(self, dtype: torch.dtype) -> torch.Tensor:
        lse = self.sums.log()
        return (lse if self.maxima is None else lse.add_(self.maxima)).to(dtype)


class Softmaxes(NamedTuple):
    """What gives the gradient of logits: gradients and values of logsumexps, and the gradient of the diagonal. None
    where there is none."""

    row_grad: torch.Tensor | None = None
    row_lse: torch.Tensor | None = None
    column_grad: torch.Tensor | None = None
    column_lse: torch.Tensor | None = None
    diagonal_grad: torch.Tensor | None = None

    def of_rows(self, part: slice) -> Softmaxes:
        """Those of a block of rows and all columns."""
        row_grad, row_lse, column_grad, column_lse, diagonal = self
        if row_grad is not None and row_lse is not None:
            row_grad, row_lse = row_grad[part], row_lse[part]
        return Softmaxes(row_grad, row_lse, column_grad, column_lse, None if diagonal is None else diagonal[part])


class Passes:
    """The passes in PyTorch, for every dtype and device. `log_scale` has the dtype of the statistics."""

    def __init__(self, scaling: Scaling = STANDARD) -> None:
        self.scaling = scaling

    def scale(self, x: torch.Tensor, log_scale: torch.Tensor, out: torch.Tensor) -> None:
        """Fills `out` [rows, dim], of log_scale's dtype, with `scaled`; its temporaries are bounded."""
        for part in parts(x.shape[0], x.shape[1], log_scale.dtype.itemsize * 8):
            out[part] = scaled(x[part], log_scale, self.scaling)

    def scale_backward(
        self, grad: torch.Tensor, x: torch.Tensor, log_scale: torch.Tensor, out: torch.Tensor, shares: torch.Tensor
    ) -> None:
        """Fills `out` [rows, dim], which may be `grad`, with the gradient of x from that of its scaled rows, and
        `shares` [rows] with each row's share of log_scale's gradient.
        """
        for part in parts(x.shape[0], x.shape[1], log_scale.dtype.itemsize * 8):
            out[part], shares[part] = scaled_backward(grad[part], x[part], log_scale, self.scaling)

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
        """Fills the logsumexp of each row of a block of logits, and their diagonal from column `first` on; adds to the
        sums of columns. Bounded logits may be overwritten, with `store` by their exp.
        """
        if diagonal is not None:
            diagonal.copy_(logits.diagonal(first))
        if bounded:
            logits.exp_()
            if row_lse is not None:
                torch.sum(logits, 1, out=row_lse).log_()
            if columns is not None:
                columns.sums.add_(logits.sum(0))
            return
        if row_lse is not None:
            torch.logsumexp(logits, 1, out=row_lse)
        if columns is not None:
            assert columns.maxima is not None
            before = columns.maxima.clone()
            torch.maximum(columns.maxima, logits.amax(0), out=columns.maxima)
            columns.sums.mul_(before.sub_(columns.maxima).exp_())
            columns.sums.add_((logits - columns.maxima).exp_().sum(0))

    def weights(
        self,
        logits: torch.Tensor,
        out: torch.Tensor,
        first: int,
        softmaxes: Softmaxes,
        bounded: bool,
        exponentiated: bool,
    ) -> None:
        """Fills `out`, which may be `logits`, with the gradient of a block of logits, or of their exp."""
        # A piece at a time: temporaries are as large as what is converted.
        for piece in parts(logits.shape[0], logits.shape[1], logits.dtype.itemsize * 4):
            s = softmaxes.of_rows(piece)
            by_row = None if s.row_grad is None or s.row_lse is None else (s.row_grad[:, None], s.row_lse[:, None])
            by_column = None if s.column_grad is None or s.column_lse is None else (s.column_grad, s.column_lse)
            pairs = [pair for pair in (by_row, by_column) if pair is not None]
            if bounded:
                # exp(l - r) g + exp(l - c) h = exp(l) (exp(-r) g + exp(-c) h)
                factors = [grad * torch.exp(-lse) for grad, lse in pairs]
                e = logits[piece] if exponentiated else torch.exp(logits[piece])
                torch.mul(e, sum(factors[1:], start=factors[0]), out=out[piece])
            else:
                weights = [(logits[piece] - lse).exp_().mul_(grad) for grad, lse in pairs]
                torch.add(*weights, out=out[piece]) if len(weights) == 2 else out[piece].copy_(weights[0])
        if softmaxes.diagonal_grad is not None:
            out.diagonal(first).add_(softmaxes.diagonal_grad)


def bounded_by(log_scale: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scaling: Scaling) -> bool:
    """Whether exp of the logits of a and b is safe without subtracting the maximum: then one exp serves rows and
    columns.

    Normalised rows have at most unit length before the temperature, so its value decides; others are measured. Never on
    a GPU, where reading it would make the host wait.
    """
    if log_scale.device.type != "cpu" or a.shape[0] * b.shape[0] < WORTH_SHARING:
        return False
    if scaling.normalize:
        return log_scale.item() < math.log(SAFE_EXPONENT)
    scale = math.exp(min(log_scale.item(), scaling.max_log_scale, 700.0))  # exp(710) is an error
    longest = [torch.linalg.vector_norm(side, dim=1, dtype=log_scale.dtype).amax().item() for side in (a, b)]
    return scale * longest[0] * longest[1] < SAFE_EXPONENT
