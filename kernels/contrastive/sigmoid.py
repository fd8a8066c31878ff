"""The sigmoid loss of all pairs of vectors, a block of rows at a time: memory linear in their number.

A logit is l = s x.y + bias, s the temperature. With a target t from 0 to 1 its loss is softplus(l) - t l:
-log sigmoid(l) for t = 1 and -log sigmoid(-l) for t = 0 (SigLIP, https://arxiv.org/abs/2303.15343, algorithm 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.nn.functional import softplus

from reserve_kernels.contrastive.blocks import passes_for
from reserve_kernels.contrastive.passes import parts
from reserve_kernels.contrastive.products import add_product, product
from reserve_kernels.contrastive.reference import Scaling, statistics_dtype, temperature
from reserve_kernels.contrastive.targets import Targets

STRAIGHT_FROM = 40.0
"""Softplus of what is above is the number itself, to the last bit of a float64."""


GPU_BLOCK_BYTES = 128 << 20
"""Size of a block of logits on a GPU, where some twenty kernels are launched for each."""


def block_bytes(device: torch.device) -> int | None:
    """Size of a block of logits; None: `passes.BLOCK_BYTES`, which stay in a CPU's cache."""
    return None if device.type == "cpu" else GPU_BLOCK_BYTES


class Problem(NamedTuple):
    """The logits of a [n, dim] with b [m, dim], before scaling, and their targets."""

    a: torch.Tensor
    b: torch.Tensor
    log_scale: torch.Tensor
    bias: torch.Tensor
    scaling: Scaling
    paired: bool = False
    """Whether the targets of a[i] and b[i] are 1; without `targets` all others are 0."""
    targets: Targets | None = None
    """The targets that are not 0, instead. Without weights all are 1."""


class Sums(NamedTuple):
    """Sums of losses: by row [n], and by column [m] if asked for; in the statistics' dtype."""

    rows: torch.Tensor
    columns: torch.Tensor | None


class Upstream(NamedTuple):
    """Gradients of the sums by row and column. None: the gradient of every loss is 1."""

    rows: torch.Tensor
    columns: torch.Tensor | None


class Gradients(NamedTuple):
    """Those of a problem's tensors: of a and b in the dtype that was asked for, scalars in that of the statistics."""

    a: torch.Tensor
    b: torch.Tensor
    log_scale: torch.Tensor
    bias: torch.Tensor


def sigmoid_sums(problem: Problem, by_column: bool) -> Sums:
    """The losses' sums, in one product."""
    sums, _ = _blocks(problem, by_column, None, None)
    assert sums is not None
    return sums


def sigmoid_gradients(problem: Problem, upstream: Upstream, dtype: torch.dtype) -> Gradients:
    """Gradients, those of a and b in `dtype`, in three products: the logits are computed again."""
    _, gradients = _blocks(problem, None, upstream, dtype)
    assert gradients is not None
    return gradients


def sigmoid_sums_and_gradients(problem: Problem, by_column: bool) -> tuple[Sums, Gradients]:
    """The losses' sums and the gradients of their total, in three products.

    Gradients have the statistics' dtype: that of a mean over many pairs would underflow float16, and the total's may
    overflow it.
    """
    sums, gradients = _blocks(problem, by_column, None, statistics_dtype(problem.a.dtype))
    assert sums is not None
    assert gradients is not None
    return sums, gradients


def operands_of(x: torch.Tensor) -> torch.dtype:
    """Dtype of what is multiplied: half precision where the products are as exact with it, on CUDA."""
    return x.dtype if x.is_cuda else statistics_dtype(x.dtype)


class _Side:
    """One side of the products. Vectors that are taken as they are need no copy: the logits are scaled instead."""

    def __init__(self, vectors: torch.Tensor, problem: Problem, dtype: torch.dtype | None) -> None:
        self.vectors, self.log_scale, self.scaling = vectors, problem.log_scale, problem.scaling
        self.passes, self.operands = passes_for(vectors, problem.scaling), operands_of(vectors)
        if dtype is not None:
            # The dtype of what is scaled decides that of its gradient; widening changes no number.
            self.like = vectors.to(dtype)
            self.grad = torch.empty_like(self.like, memory_format=torch.contiguous_format)
            self.shares = self.log_scale.new_zeros(len(vectors))

    def rows(self, part: slice) -> torch.Tensor:
        """Rows to multiply."""
        rows = self.vectors[part]
        if not self.scaling.normalize:
            return rows.to(self.operands)
        out = self.log_scale.new_empty(rows.shape, dtype=self.operands)
        self.passes.scale(rows, self.log_scale, out)
        return out

    def memory(self, part: slice) -> torch.Tensor | None:
        """Where `take` would like its gradient to be."""
        return self.grad[part] if self.grad.dtype == self.log_scale.dtype else None

    def take(self, grad: torch.Tensor, part: slice, of_scale: bool = True) -> None:
        """Takes the gradient of `rows`, and with `of_scale` the share that log_scale has through them."""
        if self.scaling.normalize:
            self.passes.scale_backward(grad, self.like[part], self.log_scale, self.grad[part], self.shares[part])
            return
        mine = self.grad[part]
        if mine.data_ptr() != grad.data_ptr():
            mine.copy_(grad)
        if of_scale:
            inside = self.log_scale <= self.scaling.max_log_scale
            self.shares[part] = torch.linalg.vecdot(grad, self.like[part].to(grad.dtype)) * inside


def _blocks(
    problem: Problem, by_column: bool | None, upstream: Upstream | None, dtype: torch.dtype | None
) -> tuple[Sums | None, Gradients | None]:
    """Sums unless by_column is None, and gradients in `dtype` unless it is None."""
    log_scale, scaling = problem.log_scale, problem.scaling
    (n, dim), m = problem.a.shape, len(problem.b)
    a, b = (_Side(vectors, problem, dtype) for vectors in (problem.a, problem.b))
    whole = slice(0, m)
    wide_b = b.rows(whole)
    scale = None if scaling.normalize else temperature(log_scale, scaling.max_log_scale).square()
    rows = None if by_column is None else log_scale.new_zeros(n)
    columns = log_scale.new_zeros(m, dtype=torch.float64) if by_column else None
    sum_b: torch.Tensor | None = None
    of_bias = log_scale.new_zeros((), dtype=torch.float64)
    upstream, unit = scaled_upstream(upstream, a.operands)
    # Scaling a row and its gradient takes a few temporaries of its length.
    most = block_bytes(log_scale.device)
    blocks = list(parts(n if m else 0, max(m, 4 * dim), log_scale.dtype.itemsize, most))
    # One number more, to which entries of other blocks go.
    memory = log_scale.new_empty((blocks[0].stop if blocks else 0) * m + 1)
    for part in blocks:
        wide_a = a.rows(part)
        count = len(wide_a)
        logits = product(wide_a, wide_b.T, memory[: count * m].view(count, m))
        for piece in pieces(memory, logits, problem.bias, part.start, problem.paired, problem.targets, scale):
            if rows is not None:
                losses = piece.losses()
                torch.sum(losses, 1, out=rows[piece.part])
                if columns is not None:
                    columns += losses.sum(0)
            if dtype is not None:
                of_bias += piece.turn_into_weights(upstream, scale)
        if dtype is None:
            continue
        weights = logits.to(a.operands)
        grad = product(weights, wide_b, a.memory(part))
        if unit is not None:
            grad *= unit
        a.take(grad, part)
        if sum_b is None:
            sum_b = product(weights.T, wide_a, b.memory(whole))
        else:
            add_product(sum_b, weights.T, wide_a)
    sums = None if rows is None else Sums(rows, None if columns is None else columns.to(log_scale.dtype))
    if dtype is None:
        return sums, None
    if sum_b is None:  # no blocks
        a.grad.zero_()
        b.grad.zero_()
    else:
        if unit is not None:
            sum_b *= unit
            of_bias *= unit
        b.take(sum_b, whole, of_scale=False)
    # In float64, so that cancelling shares do not lose it.
    of_scale = torch.cat((a.shares, b.shares)).sum(dtype=torch.float64).to(log_scale.dtype)
    return sums, Gradients(a.grad, b.grad, of_scale, of_bias.to(log_scale.dtype))


def scaled_upstream(upstream: Upstream | None, operands: torch.dtype) -> tuple[Upstream | None, torch.Tensor | None]:
    """Upstream gradients of at most 1, and the unit they are in: those of a mean would underflow float16."""
    if upstream is None or operands not in (torch.float16, torch.bfloat16):
        return upstream, None
    rows, columns = upstream
    unit = torch.linalg.vector_norm(rows, torch.inf)
    if columns is not None:
        unit = unit + torch.linalg.vector_norm(columns, torch.inf)
    unit = unit.clamp(min=2.0**-100)
    return Upstream(rows / unit, None if columns is None else columns / unit), unit


def pieces(
    memory: torch.Tensor,
    logits: torch.Tensor,
    bias: torch.Tensor,
    first: int,
    paired: bool,
    targets: Targets | None = None,
    scale: torch.Tensor | None = None,
) -> Iterator[Piece]:
    """Turns a block of products, `logits` [rows, m] from row `first` on, which lie in `memory` with one number behind
    them, into logits, and yields its rows: in pieces that stay in a core's cache, with one thread; otherwise at once.
    """
    count, m = logits.shape
    # Several threads wait for each other after every operation: the fewer, the better.
    small = memory.device.type == "cpu" and torch.get_num_threads() == 1
    for piece in parts(count, m, memory.dtype.itemsize * 4) if small else [slice(0, count)]:
        of_piece = memory[piece.start * m : piece.stop * m + 1]
        if scale is not None:
            of_piece[:-1].mul_(scale)
        of_piece[:-1].add_(bias)
        yield Piece(of_piece, m, first + piece.start, paired, targets)


class Piece:
    """Rows of logits [rows, m] from row `first` on, which lie in `memory` with one number behind them.

    Those of pairs are negated: -log sigmoid(l) is softplus(-l), so that one softplus makes all losses.
    """

    def __init__(self, memory: torch.Tensor, m: int, first: int, paired: bool, targets: Targets | None) -> None:
        self.logits, self.memory, self.first = memory[:-1].view(-1, m), memory, first
        self.part = slice(first, first + self.logits.shape[0])
        """The rows among all."""
        self.pairs = self.logits.diagonal(first).neg_() if paired and targets is None else None
        self.weights: torch.Tensor | None = None
        self.places: torch.Tensor | None = None
        if targets is not None:
            self._find(targets)

    def _find(self, targets: Targets) -> None:
        """Finds the places of targets in memory, and their weights."""
        count, m = self.logits.shape
        if self.logits.device.type != "cpu":
            self.places, self.weights = masked_places(targets, self.first, count, m, self.logits.dtype)
            return
        offsets, columns, weights = targets
        of_rows = offsets[self.first : self.part.stop + 1]
        entries = slice(int(of_rows[0]), int(of_rows[-1]))
        self.places = torch.repeat_interleave(torch.arange(count, device="cpu"), of_rows.diff()) * m + columns[entries]
        self.weights = None if weights is None else weights[entries].to(self.logits.dtype)

    def losses(self) -> torch.Tensor:
        """The losses of all logits."""
        if self.places is None:
            return softplus(self.logits, threshold=STRAIGHT_FROM)
        positives = self.memory[self.places]
        memory = softplus(self.memory, threshold=STRAIGHT_FROM)
        # Not the difference of softplus(l) and t l, whose digits are lost where a positive is confident.
        memory[self.places] = self._mixed(softplus(-positives, threshold=STRAIGHT_FROM), memory[self.places])
        return memory[:-1].view(self.logits.shape)

    def differentiate(self) -> None:
        """Replaces the logits by the gradients of their losses, sigmoid(l) - t."""
        positives = None if self.places is None else self.memory[self.places]
        self.logits.sigmoid_()
        if self.pairs is not None:
            self.pairs.neg_()
        if positives is not None:
            self.memory[self.places] = self._mixed(-torch.sigmoid(-positives), torch.sigmoid(positives))

    def turn_into_weights(self, upstream: Upstream | None, scale: torch.Tensor | None = None) -> torch.Tensor:
        """Replaces the logits by the gradients of their losses times those of the sums, and returns their sum, the
        gradient of the bias. With `scale` they are the gradients of products before it.
        """
        self.differentiate()
        if upstream is not None:
            rows = upstream.rows[self.part, None]
            self.logits.mul_(rows if upstream.columns is None else rows + upstream.columns)
        of_bias = self.logits.sum()
        if scale is not None:
            self.logits.mul_(scale)
        return of_bias

    def _mixed(self, of_positive: torch.Tensor, of_negative: torch.Tensor) -> torch.Tensor:
        """What is to be where the targets are not 0."""
        if self.weights is None:
            return of_positive
        return self.weights * of_positive + (1 - self.weights) * of_negative


def masked_places(
    targets: Targets, first: int, count: int, m: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The places of all targets in a block of `count` rows of m, and their weights. On a GPU the host does not know
    which are in the block, so others get the place behind it.
    """
    rows = targets.rows() - first
    # Of a column that is none, which nobody has checked, the place would be that of another logit.
    inside = (rows >= 0) & (rows < count) & (targets.columns >= 0) & (targets.columns < m)
    places = torch.where(inside, rows * m + targets.columns, count * m)
    return places, None if targets.weights is None else targets.weights.to(dtype)
