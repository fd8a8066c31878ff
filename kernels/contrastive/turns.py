"""What a rank of the ring does while another rank's y is there: the logits with its x, and their gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch

from reserve_kernels.contrastive.blocks import passes_for
from reserve_kernels.contrastive.passes import Columns, Softmaxes, bounded_by, parts
from reserve_kernels.contrastive.products import add_product, product
from reserve_kernels.contrastive.reference import Scaling
from reserve_kernels.contrastive.sigmoid import Upstream, block_bytes, operands_of, pieces, scaled_upstream

Losses = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class Turns(ABC):
    """One pass round the ring. All vectors are scaled; those of a visitor are y [pairs, dim], then y_extra."""

    def __init__(self, x: torch.Tensor, extra: torch.Tensor, log_scale: torch.Tensor) -> None:
        self.operands, self.log_scale = operands_of(x), log_scale
        self.x, self.extra = x.to(self.operands), extra.to(self.operands)

    @abstractmethod
    def sums(self, vectors: torch.Tensor, pairs: int, own: bool) -> torch.Tensor:
        """Adds to the sums of this rank's rows and returns what the visitor collects, [*, pairs] in float64."""

    @staticmethod
    @abstractmethod
    def merged(before: torch.Tensor, here: torch.Tensor) -> torch.Tensor:
        """What a visitor has collected, with that of this rank."""

    @abstractmethod
    def losses(self, collected: torch.Tensor) -> tuple[Losses, list[torch.Tensor]]:
        """The losses, and what to save, given what this rank's own y has collected."""

    @abstractmethod
    def start_backward(self, of_losses: tuple[torch.Tensor | None, ...], saved: list[torch.Tensor]) -> torch.Tensor:
        """Given the gradients of the losses, what travels beside y in the backward pass [*, pairs]."""

    @abstractmethod
    def gradients(self, vectors: torch.Tensor, pairs: int, own: bool, statistics: torch.Tensor) -> torch.Tensor:
        """Adds to the gradients of this rank's rows and returns the visitor's."""

    def of_bias(self) -> torch.Tensor | None:
        return None

    def start_gradients(self) -> None:
        self.grad_x, self.grad_extra = (self.log_scale.new_zeros(side.shape) for side in (self.x, self.extra))

    def blocks(self, a: torch.Tensor, b: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
        """Blocks of rows of a, their logits with all of b, and the memory of these with one number behind them."""
        m = b.shape[0]
        memory: torch.Tensor | None = None
        most = block_bytes(a.device)
        for part in parts(a.shape[0] if m else 0, m, self.log_scale.dtype.itemsize, most):
            count = part.stop - part.start
            memory = self.log_scale.new_empty(count * m + 1) if memory is None else memory
            of_block = memory[: count * m + 1]
            yield part, product(a[part], b.T, of_block[:-1].view(count, m)), of_block

    def add_gradients(
        self,
        weights: torch.Tensor,
        unit: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        of_a: torch.Tensor,
        of_b: torch.Tensor,
    ) -> None:
        """Adds to the gradients of a block of rows a and of b, from that of its logits in units of `unit`."""
        weights = weights.to(self.operands)
        for total, left, right in ((of_a, weights, b), (of_b, weights.T, a)):
            if unit is None:
                add_product(total, left, right)
            else:
                total.add_(product(left, right) * unit)


def _mean_and_others(
    of_losses: tuple[torch.Tensor | None, ...], count: int, zeros: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of the losses, the first divided by `count`; zeros for none."""
    of_loss, of_x, of_y = of_losses
    mean = zeros if of_loss is None else (of_loss / count).expand(zeros.shape)
    return mean, zeros if of_x is None else of_x, zeros if of_y is None else of_y


class SoftmaxTurns(Turns):
    """Columns collect their logsumexp."""

    def __init__(self, x: torch.Tensor, extra: torch.Tensor, log_scale: torch.Tensor, scaling: Scaling) -> None:
        super().__init__(x, extra, log_scale)
        self.passes, self.scaling = passes_for(x, scaling), scaling
        self.row_lse = log_scale.new_full((len(x),), -torch.inf)
        self.diagonal = log_scale.new_empty(len(x))

    def _bounded(self, a: torch.Tensor, b: torch.Tensor) -> bool:
        # Others would have to be measured before they were scaled.
        return self.scaling.normalize and bounded_by(self.log_scale, a, b, self.scaling)

    def sums(self, vectors: torch.Tensor, pairs: int, own: bool) -> torch.Tensor:
        vectors = vectors.to(self.operands)
        rows = torch.full_like(self.row_lse, -torch.inf)
        found = []
        for a, b, of_rows in ((self.x, vectors, rows), (self.extra, vectors[:pairs], None)):
            bounded = self._bounded(a, b)
            columns = Columns.empty(len(b), self.log_scale, bounded)
            for part, logits, _ in self.blocks(a, b):
                by_row = None if of_rows is None else of_rows[part]
                diagonal = self.diagonal[part] if own and of_rows is not None else None
                self.passes.logsumexp(logits, part.start, by_row, columns, diagonal, bounded, False)
            found.append(columns.logsumexp(torch.float64)[:pairs])
        self.row_lse = torch.logaddexp(self.row_lse, rows)
        return torch.logaddexp(*found)[None]

    @staticmethod
    def merged(before: torch.Tensor, here: torch.Tensor) -> torch.Tensor:
        return torch.logaddexp(before, here)

    def losses(self, collected: torch.Tensor) -> tuple[Losses, list[torch.Tensor]]:
        column_lse = collected[0].to(self.log_scale.dtype)
        x_to_y, y_to_x = self.row_lse - self.diagonal, column_lse - self.diagonal
        loss = (x_to_y + y_to_x).sum() / (2 * max(len(x_to_y), 1))
        return (loss, x_to_y, y_to_x), [self.row_lse, column_lse]

    def start_backward(self, of_losses: tuple[torch.Tensor | None, ...], saved: list[torch.Tensor]) -> torch.Tensor:
        self.start_gradients()
        self.row_lse, column_lse = saved[0].contiguous(), saved[1]
        count = 2 * max(len(column_lse), 1)
        mean, of_x, of_y = _mean_and_others(of_losses, count, torch.zeros_like(column_lse))
        self.of_x, of_y = (mean + of_x).contiguous(), mean + of_y
        self.of_diagonal = -(self.of_x + of_y)
        return torch.stack((column_lse, of_y))

    def gradients(self, vectors: torch.Tensor, pairs: int, own: bool, statistics: torch.Tensor) -> torch.Tensor:
        vectors, (lse, of_columns) = vectors.to(self.operands), statistics
        total = self.log_scale.new_zeros(vectors.shape)
        upstream, unit = scaled_upstream(Upstream(self.of_x, of_columns), self.operands)
        assert upstream is not None
        of_rows, of_columns = upstream.rows, upstream.columns
        # Candidates without a pair have no loss of their own: exp(logit - inf) is 0.
        extras = len(vectors) - pairs
        column_lse = torch.cat((lse, lse.new_full((extras,), torch.inf)))
        assert of_columns is not None
        column_grad = torch.cat((of_columns, lse.new_zeros(extras)))
        of_diagonal = None if not own else self.of_diagonal if unit is None else self.of_diagonal / unit
        by_row = Softmaxes(of_rows, self.row_lse, column_grad, column_lse, of_diagonal)
        by_column = Softmaxes(column_grad=column_grad[:pairs], column_lse=column_lse[:pairs])
        for a, of_a, b, of_b, softmaxes in (
            (self.x, self.grad_x, vectors, total, by_row),
            (self.extra, self.grad_extra, vectors[:pairs], total[:pairs], by_column),
        ):
            bounded = self._bounded(a, b)
            for part, logits, _ in self.blocks(a, b):
                self.passes.weights(logits, logits, part.start, softmaxes.of_rows(part), bounded, False)
                self.add_gradients(logits, unit, a[part], b, of_a[part], of_b)
        return total


class SigmoidTurns(Turns):
    """Columns collect their sums of losses: those with x, and those with x_extra."""

    def __init__(self, x: torch.Tensor, extra: torch.Tensor, log_scale: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__(x, extra, log_scale)
        self.bias = bias
        self.rows = log_scale.new_zeros(len(x), dtype=torch.float64)
        self.total_of_weights = log_scale.new_zeros((), dtype=torch.float64)

    def sums(self, vectors: torch.Tensor, pairs: int, own: bool) -> torch.Tensor:
        vectors = vectors.to(self.operands)
        found = []
        for a, b, rows, paired in ((self.x, vectors, self.rows, own), (self.extra, vectors[:pairs], None, False)):
            columns = self.rows.new_zeros(len(b))
            for part, logits, memory in self.blocks(a, b):
                for piece in pieces(memory, logits, self.bias, part.start, paired):
                    losses = piece.losses()
                    columns += losses.sum(0)
                    if rows is not None:
                        rows[piece.part] += losses.sum(1)
            found.append(columns[:pairs])
        return torch.stack(found)

    @staticmethod
    def merged(before: torch.Tensor, here: torch.Tensor) -> torch.Tensor:
        return before + here

    def losses(self, collected: torch.Tensor) -> tuple[Losses, list[torch.Tensor]]:
        # Each logit counts once: those of y with x are in the rows of some rank.
        loss = (self.rows.sum() + collected[1].sum()) / max(len(self.rows), 1)
        dtype = self.log_scale.dtype
        return (loss.to(dtype), self.rows.to(dtype), collected.sum(0).to(dtype)), []

    def start_backward(self, of_losses: tuple[torch.Tensor | None, ...], saved: list[torch.Tensor]) -> torch.Tensor:
        self.start_gradients()
        zeros = self.log_scale.new_zeros(len(self.x))
        mean, of_x, of_y = _mean_and_others(of_losses, max(len(zeros), 1), zeros)
        self.of_x = mean + of_x
        return torch.stack((of_y, mean + of_y))

    def gradients(self, vectors: torch.Tensor, pairs: int, own: bool, statistics: torch.Tensor) -> torch.Tensor:
        vectors = vectors.to(self.operands)
        total = self.log_scale.new_zeros(vectors.shape)
        with_x = torch.cat((statistics[0], statistics.new_zeros(len(vectors) - pairs)))
        for a, of_a, b, of_b, given, paired in (
            (self.x, self.grad_x, vectors, total, Upstream(self.of_x, with_x), own),
            (
                self.extra,
                self.grad_extra,
                vectors[:pairs],
                total[:pairs],
                Upstream(self.log_scale.new_zeros(len(self.extra)), statistics[1]),
                False,
            ),
        ):
            upstream, unit = scaled_upstream(given, self.operands)
            for part, logits, memory in self.blocks(a, b):
                for piece in pieces(memory, logits, self.bias, part.start, paired):
                    summed = piece.turn_into_weights(upstream)
                    self.total_of_weights += summed if unit is None else summed * unit
                self.add_gradients(logits, unit, a[part], b, of_a[part], of_b)
        return total

    def of_bias(self) -> torch.Tensor:
        return self.total_of_weights.to(self.bias.dtype)
