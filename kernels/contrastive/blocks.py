"""contrastive_loss a block of rows at a time, through PyTorch's matrix products.

The back end "dense" stores all logits for the backward pass; "chunked" computes a block of them again there, and never
has more than one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from reserve_kernels.contrastive.native import NativePasses, unavailable
from reserve_kernels.contrastive.passes import Columns, Passes, Softmaxes, bounded_by, parts
from reserve_kernels.contrastive.reference import STANDARD, Scaling, statistics_dtype

Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Four = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]

STORED_BLOCK_BYTES = 32 << 20
"""Size of a block of logits that are stored, and of the memory for their gradient."""

UNUSED_BYTES = 1 << 20
"""Memory behind what is stored, which is never touched. glibc returns freed memory to the system once it exceeds twice
the largest block that it ever freed, and the next step faults it in again. What a step allocates is twice what it
stores and a little more. Only under torch.use_deterministic_algorithms is it written: PyTorch fills new memory then.
"""

KEPT_BYTES = (1 << 19, 32 << 20)
"""The least and the most that is stored with such memory behind it. glibc never keeps larger blocks. For smaller ones
it would be most of what a graph holds, and many graphs may be held at once.
"""


class Stored(NamedTuple):
    """What "dense" stores, in one tensor: logits [rows of a, rows of b], or their exp where they are bounded, and both
    sides scaled. `a` is the longer side.
    """

    logits: torch.Tensor
    a: torch.Tensor
    b: torch.Tensor

    @classmethod
    def of(cls, memory: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> Stored:
        n, m, dim = max(x.shape[0], y.shape[0]), min(x.shape[0], y.shape[0]), x.shape[1]
        logits, a, b = memory.split((n * m, n * dim, m * dim))
        return cls(logits.view(n, m), a.view(n, dim), b.view(m, dim))


def passes_for(x: torch.Tensor, scaling: Scaling = STANDARD) -> Passes:
    """The passes for vectors with the dtype and device of `x`: native ones where they run."""
    if unavailable(x.device, statistics_dtype(x.dtype)):
        return Passes(scaling)
    return NativePasses(scaling=scaling)


def stored_memory(x: torch.Tensor, y: torch.Tensor, unused: int = 0) -> torch.Tensor:
    """Memory for `Stored`, of the statistics' dtype, with as many elements behind it as `unused` says."""
    needed = _stored_elements(x, y)
    return x.new_empty(needed + unused, dtype=statistics_dtype(x.dtype))[:needed]


def stored_bytes(x: torch.Tensor, y: torch.Tensor) -> int:
    """The size of `Stored`."""
    return _stored_elements(x, y) * statistics_dtype(x.dtype).itemsize


def _stored_elements(x: torch.Tensor, y: torch.Tensor) -> int:
    n, m = x.shape[0], y.shape[0]
    return n * m + (n + m) * x.shape[1]


def logsumexp_dense(
    x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor, both: bool, scaling: Scaling = STANDARD
) -> Four:
    """As `logsumexp_reference`, and what the backward pass takes."""
    kept = x.device.type == "cpu" and KEPT_BYTES[0] <= stored_bytes(x, y) <= KEPT_BYTES[1]
    memory = stored_memory(x, y, UNUSED_BYTES // log_scale.dtype.itemsize if kept else 0)
    return *_logsumexp(x, y, log_scale, both, scaling, Stored.of(memory, x, y)), memory


def logsumexp_chunked(
    x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor, both: bool, scaling: Scaling = STANDARD
) -> Four:
    """As `logsumexp_reference`; it stores nothing."""
    return *_logsumexp(x, y, log_scale, both, scaling, None), x.new_empty(0)


def _logsumexp(
    x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor, both: bool, scaling: Scaling, stored: Stored | None
) -> Three:
    by_row = x.shape[0] >= y.shape[0]  # The longer side is cut into blocks; with `both` they are equally long.
    a, b = (x, y) if by_row else (y, x)
    passes, bounded = passes_for(x, scaling), bounded_by(log_scale, x, y, scaling)
    wide_b = log_scale.new_empty(b.shape) if stored is None else stored.b
    passes.scale(b, log_scale, wide_b)
    # Without candidates a logsumexp is -inf.
    rows = log_scale.new_full((a.shape[0],), -torch.inf) if by_row else None
    columns = Columns.empty(b.shape[0], log_scale, bounded) if both or not by_row else None
    diagonal = log_scale.new_empty(a.shape[0]) if both else None
    blocks = _Blocks(a, b, log_scale, stored)
    for part in blocks:
        wide_a, logits = blocks.rows(part), blocks.logits(part)
        passes.scale(a[part], log_scale, wide_a)
        torch.mm(wide_a, wide_b.T, out=logits)
        of_rows = None if rows is None else rows[part]
        of_diagonal = None if diagonal is None else diagonal[part]
        passes.logsumexp(logits, part.start, of_rows, columns, of_diagonal, bounded, stored is not None)
    none = log_scale.new_empty(0)
    of_columns = none if columns is None else columns.logsumexp(log_scale.dtype)
    if rows is None:
        return of_columns, none, log_scale.new_empty(0)
    return rows, of_columns, log_scale.new_empty(0) if diagonal is None else diagonal


class _Blocks:
    """Iterates over blocks of rows of a. Their scaled rows and logits are in what is stored, or share one memory."""

    def __init__(self, a: torch.Tensor, b: torch.Tensor, log_scale: torch.Tensor, stored: Stored | None) -> None:
        self.stored = stored
        # Scaling a row and its gradient takes a few temporaries of its length.
        widest = max(b.shape[0], 4 * a.shape[1])
        size = None if stored is None else STORED_BLOCK_BYTES
        self.parts = list(parts(a.shape[0] if b.shape[0] else 0, widest, log_scale.dtype.itemsize, size))
        if stored is None:
            most = self.parts[0].stop if self.parts else 0
            self._rows, self._logits = log_scale.new_empty(most, a.shape[1]), log_scale.new_empty(most, b.shape[0])

    def __iter__(self) -> Iterator[slice]:
        return iter(self.parts)

    def rows(self, part: slice) -> torch.Tensor:
        return self._rows[: part.stop - part.start] if self.stored is None else self.stored.a[part]

    def logits(self, part: slice) -> torch.Tensor:
        return self._logits[: part.stop - part.start] if self.stored is None else self.stored.logits[part]


def logsumexp_blocks_backward(
    grads: Three,
    x: torch.Tensor,
    y: torch.Tensor,
    log_scale: torch.Tensor,
    row_lse: torch.Tensor,
    column_lse: torch.Tensor,
    memory: torch.Tensor,
    both: bool,
    scaling: Scaling = STANDARD,
) -> Three:
    """Gradients of x, y and log_scale. Without stored logits, it computes them again, once for both directions."""
    # The native passes take pointers, and a hook of saved tensors may return other strides.
    row_lse, column_lse, memory = (saved.contiguous() for saved in (row_lse, column_lse, memory))
    stored = Stored.of(memory, x, y) if memory.numel() else None
    of_x, of_columns, of_diagonal = (grad.contiguous() for grad in grads)
    if y.shape[0] > x.shape[0]:  # then not both: the gradient that is summed over blocks is the short one
        softmaxes = Softmaxes(column_grad=of_x, column_lse=row_lse)
        grad_y, grad_x, grad_log_scale = _gradients(y, x, log_scale, softmaxes, scaling, stored)
        return grad_x, grad_y, grad_log_scale
    softmaxes = Softmaxes(of_x, row_lse, of_columns, column_lse, of_diagonal) if both else Softmaxes(of_x, row_lse)
    return _gradients(x, y, log_scale, softmaxes, scaling, stored)


def _gradients(
    a: torch.Tensor,
    b: torch.Tensor,
    log_scale: torch.Tensor,
    softmaxes: Softmaxes,
    scaling: Scaling,
    stored: Stored | None,
) -> Three:
    """Gradients of a, b and log_scale through the logits of a and b, a block of rows at a time."""
    if not (a.numel() and b.numel()):
        return a.new_zeros(a.shape), b.new_zeros(b.shape), torch.zeros_like(log_scale)
    passes, bounded = passes_for(a, scaling), bounded_by(log_scale, a, b, scaling)
    dtype, contiguous = log_scale.dtype, torch.contiguous_format
    blocks = _Blocks(a, b, log_scale, stored)
    if stored is None:
        wide_b = log_scale.new_empty(b.shape)
        passes.scale(b, log_scale, wide_b)
    else:
        wide_b = stored.b
        most = blocks.parts[0].stop
        # What is stored stays as it is, for another backward pass.
        scratch = log_scale.new_empty(most, b.shape[0])
    grad_a = torch.empty_like(a, memory_format=contiguous)
    sum_b = log_scale.new_empty(b.shape)
    shares = log_scale.new_empty(a.shape[0] + b.shape[0])
    shares_a, shares_b = shares[: a.shape[0]], shares[a.shape[0] :]
    for part in blocks:
        wide_a, logits = blocks.rows(part), blocks.logits(part)
        if stored is None:
            passes.scale(a[part], log_scale, wide_a)
            weights = torch.mm(wide_a, wide_b.T, out=logits)
        else:
            weights = scratch[: part.stop - part.start]
        passes.weights(logits, weights, part.start, softmaxes.of_rows(part), bounded, bounded and stored is not None)
        # In place if the dtype is the same.
        grad = torch.mm(weights, wide_b, out=grad_a[part] if a.dtype == dtype else None)
        passes.scale_backward(grad, a[part], log_scale, grad_a[part], shares_a[part])
        if part.start:
            sum_b.addmm_(weights.T, wide_a)
        else:
            torch.mm(weights.T, wide_a, out=sum_b)
    grad_b = sum_b if b.dtype == dtype else torch.empty_like(b, memory_format=contiguous)
    passes.scale_backward(sum_b, b, log_scale, grad_b, shares_b)
    # In float64, so that cancelling shares do not lose it.
    return grad_a, grad_b, shares.sum(dtype=torch.float64).to(dtype)
