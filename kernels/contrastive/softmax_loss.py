"""The softmax loss: cross-entropy of each vector against all candidates, in both directions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.distributed as dist

from reserve_kernels.contrastive.availability import BACKENDS, ContrastiveBackend
from reserve_kernels.contrastive.eager import Losses, Part
from reserve_kernels.contrastive.entries import contrastive_entries
from reserve_kernels.contrastive.gather import Gathering, exchange_counts
from reserve_kernels.contrastive.ops import contrastive_logsumexp
from reserve_kernels.contrastive.reference import Scaling
from reserve_kernels.contrastive.targets import Targets, shares
from reserve_kernels.transforms import is_plain


class Labels(NamedTuple):
    """The sparse targets of both directions."""

    of_x: Targets
    of_y: Targets | None
    """None: the transpose of x's."""


@dataclass
class Choice:
    """Chooses a back end for one problem after another: `backend`, or for "auto" by what is `left` of the budget."""

    backend: str
    left: int

    def of(self, a: torch.Tensor, b: torch.Tensor, log_scale: torch.Tensor) -> str:
        """The name of the back end for the logits of a and b."""
        if self.backend != "auto":
            return self.backend
        wanted = torch.is_grad_enabled() and (a.requires_grad or b.requires_grad or log_scale.requires_grad)

        def refuse(backend: ContrastiveBackend) -> str | None:
            fits = not backend.stores_logits or (wanted and backend.stored_bytes(a, b) <= self.left)
            return None if fits else "it stores logits"

        chosen = BACKENDS.choose("auto", a.device, a.dtype, refuse)
        self.left -= chosen.stored_bytes(a, b)
        return chosen.name


def softmax_losses(
    x: torch.Tensor,
    y: torch.Tensor,
    x_extra: torch.Tensor | None,
    y_extra: torch.Tensor | None,
    log_scale: torch.Tensor,
    labels: Labels | None,
    scaling: Scaling,
    group: dist.ProcessGroup | None,
    choice: Choice,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The mean of both directions, and the losses of each x and each y."""
    if group is None and labels is None and is_plain(x, y, x_extra, y_extra, log_scale):
        vectors, parts = [x, y], [Part(0, 1, True, choice.of(x, y, log_scale), scaling)]
        for side, extra in ((0, y_extra), (1, x_extra)):
            if extra is not None:
                backend = choice.of(vectors[side], extra, log_scale)
                parts.append(Part(side, len(vectors), False, backend, scaling))
                vectors.append(extra)
        return Losses.apply(log_scale, parts, *vectors)

    def logsumexp(a: torch.Tensor, b: torch.Tensor, both: bool) -> tuple[torch.Tensor, ...]:
        return contrastive_logsumexp(a, b, log_scale, both, choice.of(a, b, log_scale), *scaling)[:3]

    x_extras, y_extras = ([] if extra is None else [extra] for extra in (x_extra, y_extra))
    # The other ranks' candidates arrive while the logits among this rank's own are computed.
    arriving = _send(([x, *x_extras], [y, *y_extras]), group)
    x_lse, y_lse, positive = logsumexp(x, y, both=True)
    for candidates in [*y_extras, *(receive() for receive in arriving[1:])]:
        x_lse = torch.logaddexp(x_lse, logsumexp(x, candidates, both=False)[0])
    for candidates in [*x_extras, *(receive() for receive in arriving[:1])]:
        y_lse = torch.logaddexp(y_lse, logsumexp(y, candidates, both=False)[0])
    if labels is None:
        x_to_y, y_to_x = x_lse - positive, y_lse - positive
    else:
        ys, xs = (torch.cat(side) if len(side) > 1 else side[0] for side in ([y, *y_extras], [x, *x_extras]))
        of_x = _Entries.of("targets", labels.of_x, x, ys, log_scale, scaling)
        if labels.of_y is None:
            of_y = of_x.transposed(len(y))
        else:
            of_y = _Entries.of("targets[1]", labels.of_y, y, xs, log_scale, scaling)
        x_to_y, y_to_x = of_x.losses(x_lse), of_y.losses(y_lse)
    # A sum over a count of at least one, so that no pairs give 0 rather than NaN.
    loss = (x_to_y + y_to_x).sum() / (2 * max(x.shape[0], 1))
    return loss, x_to_y, y_to_x


class _Entries(NamedTuple):
    """The entries of sparse targets: their rows, columns and logits, and weights unless those of a row are equal."""

    rows: torch.Tensor
    columns: torch.Tensor
    logits: torch.Tensor
    weights: torch.Tensor | None

    @classmethod
    def of(
        cls, name: str, targets: Targets, x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor, scaling: Scaling
    ) -> _Entries:
        logits = contrastive_entries(x, y, log_scale, *targets[:2], name, *scaling)
        weights = None if targets.weights is None else targets.weights.to(logits.dtype)
        return cls(targets.rows(), targets.columns, logits, weights)

    def transposed(self, count: int) -> _Entries:
        """Those of the first `count` columns. The host does not know how many these are: the rest gets weight 0."""
        inside = self.columns < count
        rows = torch.where(inside, self.columns, 0)
        weights = self.weights
        if weights is None:
            # Of all columns, so that entries that are left out count for no row.
            weights = shares(torch.where(inside, self.columns, count), count + 1, self.logits.dtype)
        # The logits too: 0 times one that is not finite would be NaN.
        logits, weights = (torch.where(inside, values, 0.0) for values in (self.logits, weights))
        return _Entries(rows, self.rows, logits, weights)

    def losses(self, lse: torch.Tensor) -> torch.Tensor:
        """The sum over the entries of each row of weight * (lse - logit) [rows]."""
        zeros = torch.zeros_like(lse)
        weights = shares(self.rows, len(lse), lse.dtype) if self.weights is None else self.weights
        return zeros.index_add(0, self.rows, weights) * lse - zeros.index_add(0, self.rows, weights * self.logits)


def _send(
    candidates: tuple[list[torch.Tensor], ...], group: dist.ProcessGroup | None
) -> list[Callable[[], torch.Tensor]]:
    """Starts gathering each of `candidates`. Each function it returns waits for the other ranks' rows."""
    if group is None or dist.get_world_size(group) == 1:
        return []
    rows = [torch.cat(parts) if len(parts) > 1 else parts[0] for parts in candidates]
    gatherings = [Gathering(counts, group) for counts in exchange_counts(rows, group)]
    sent = [gathering.send(r) for gathering, r in zip(gatherings, rows, strict=True)]
    return [partial(gathering.receive, s) for gathering, s in zip(gatherings, sent, strict=True)]
