"""contrastive_loss: in-batch contrastive loss in both directions, over the candidates of all ranks (SPEC 8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import NamedTuple

import torch
import torch.distributed as dist

from reserve_kernels.checks import FLOATING, check_integer, check_same_device, check_tensor
from reserve_kernels.contrastive.availability import BACKENDS, ContrastiveBackend
from reserve_kernels.contrastive.eager import Losses, Part, is_plain
from reserve_kernels.contrastive.gather import Gathering, check_member, exchange_counts
from reserve_kernels.contrastive.ops import contrastive_logsumexp
from reserve_kernels.contrastive.reference import statistics_dtype
from reserve_kernels.transforms import refuse_transforms

__all__ = ["ContrastiveLoss", "contrastive_loss"]


class ContrastiveLoss(NamedTuple):
    """`loss`: mean over both directions of the mean over pairs, a scalar; `x_to_y`, `y_to_x`: [pairs] per-pair losses.

    All are float32, or float64 for float64 inputs. With no pairs `loss` is 0.
    """

    loss: torch.Tensor
    x_to_y: torch.Tensor
    y_to_x: torch.Tensor


def contrastive_loss(
    x: torch.Tensor,
    y: torch.Tensor,
    log_scale: torch.Tensor | float,
    *,
    x_extra: torch.Tensor | None = None,
    y_extra: torch.Tensor | None = None,
    group: dist.ProcessGroup | None = None,
    backend: str = "auto",
    logits_budget: int | None = None,
) -> ContrastiveLoss:
    """Contrastive loss of pairs (x[i], y[i]) against all candidates, in both directions (SPEC 8).

    Vectors are scaled to v / sqrt(sum v^2 + 1e-5) * exp(s / 2), s = min(log_scale, ln 100), and rounded to their
    dtype. The loss of x[i] is the logsumexp of its logits with all y and y_extra of all ranks, minus its logit with
    y[i]; the loss of y[i] likewise over all x and x_extra.

    Args:
        x, y: [pairs, dim], before normalisation; float16, bfloat16, float32 or float64, one dtype.
        log_scale: logarithm of the inverse temperature, a number or a tensor with one element; a tensor that requires a
            gradient gets one. Keep the tensor on x's device: otherwise the host waits for its gradient.
        x_extra, y_extra: [*, dim], candidates without a pair: negatives only.
        group: process group whose ranks' vectors are all candidates, gathered with gradients; None for this process
            alone. Ranks may have different numbers of pairs. Each rank's loss is over its own pairs, and gradients are
            those of the sum of the ranks' losses: averaging parameter gradients over ranks, as DDP does, gives those
            of the mean. All ranks must request the gradients of the same inputs, from the same outputs. The host reads
            the ranks' counts, the only wait for a GPU. Gathering overlaps with the logits among this rank's own
            vectors, in the backward pass too.
        backend: "auto" or a name from `reserve_kernels.backends()`. "dense" stores the logits for the backward pass;
            "triton" (CUDA) and "chunked" compute them again there, which takes four matrix products instead of three
            and never holds [pairs, candidates]. "auto" stores them where a gradient will be asked for and they fit
            `logits_budget`.
        logits_budget: bytes that "auto" may store for the backward pass, for all problems of this call together: x with
            y, then x with y_extra and the other ranks' candidates, then y with x_extra and the other ranks'. Each
            problem that fits what is left is stored, and the others are computed again. Stored are the logits and the
            scaled vectors of both sides, 4 bytes a number, 8 for float64; by Triton only the logits, 2 bytes each for
            half-precision vectors, in rows of a multiple of 16, and up to 8 bytes for each 64 of them. None: 1 GiB.
            Back ends by name take no notice.

    Raises:
        TypeError, ValueError: an argument has a wrong type, dtype, shape, device or value; the message names it.
        RuntimeError: the named backend cannot run here; or a double backward, which is not implemented.
        NotImplementedError: under vmap, forward-mode differentiation or torch.func.grad and its relatives.

    NaN inputs give NaN losses. Rows whose squares would overflow are scaled down first.
    It is deterministic. Without a group it compiles with fullgraph=True.
    """
    _check("x", x, None)
    for name, value in [("y", y), ("x_extra", x_extra), ("y_extra", y_extra)]:
        if value is not None:
            _check(name, value, x)
    if y.shape != x.shape:
        raise ValueError(f"y must pair with x's shape {tuple(x.shape)}; got {tuple(y.shape)}")
    of_scale = log_scale if isinstance(log_scale, torch.Tensor) else None
    refuse_transforms("contrastive_loss", x, y, x_extra, y_extra, of_scale)
    log_scale = _checked_log_scale(log_scale, x)
    budget = LOGITS_BUDGET if logits_budget is None else logits_budget
    check_integer("logits_budget", budget, 0)
    if backend != "auto":
        BACKENDS.choose(backend, x.device, x.dtype)
    choice = _Choice(backend, budget)
    if group is None and is_plain(x, y, x_extra, y_extra, log_scale):
        vectors, parts = [x, y], [Part(0, 1, True, choice.of(x, y, log_scale))]
        for side, extra in ((0, y_extra), (1, x_extra)):
            if extra is not None:
                parts.append(Part(side, len(vectors), False, choice.of(vectors[side], extra, log_scale)))
                vectors.append(extra)
        return ContrastiveLoss(*Losses.apply(log_scale, parts, *vectors))

    def logsumexp(a: torch.Tensor, b: torch.Tensor, both: bool) -> tuple[torch.Tensor, ...]:
        return contrastive_logsumexp(a, b, log_scale, both, choice.of(a, b, log_scale))[:3]

    x_extras, y_extras = ([] if extra is None else [extra] for extra in (x_extra, y_extra))
    # The other ranks' candidates arrive while the logits among this rank's own are computed.
    arriving = _send(([x, *x_extras], [y, *y_extras]), group)
    x_lse, y_lse, positive = logsumexp(x, y, both=True)
    for candidates in [*y_extras, *(receive() for receive in arriving[1:])]:
        x_lse = torch.logaddexp(x_lse, logsumexp(x, candidates, both=False)[0])
    for candidates in [*x_extras, *(receive() for receive in arriving[:1])]:
        y_lse = torch.logaddexp(y_lse, logsumexp(y, candidates, both=False)[0])
    x_to_y, y_to_x = x_lse - positive, y_lse - positive
    # A sum over a count of at least one, so that no pairs give 0 rather than NaN.
    loss = (x_to_y + y_to_x).sum() / (2 * max(x.shape[0], 1))
    return ContrastiveLoss(loss, x_to_y, y_to_x)


LOGITS_BUDGET = 1 << 30
"""Bytes that "auto" may store unless the caller says."""


@dataclass
class _Choice:
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


def _check(name: str, value: torch.Tensor, x: torch.Tensor | None) -> None:
    check_tensor(name, value, FLOATING if x is None else (x.dtype,))
    if value.dim() != 2:
        raise ValueError(f"{name} must be [rows, dim]; got shape {tuple(value.shape)}")
    if x is not None:
        check_same_device(name, value, "x", x)
        if value.shape[1] != x.shape[1]:
            raise ValueError(f"{name} must have x's dim {x.shape[1]}; got {value.shape[1]}")


def _checked_log_scale(log_scale: torch.Tensor | float, x: torch.Tensor) -> torch.Tensor:
    """`log_scale` as a 0-d tensor on x's device, in the dtype of the statistics."""
    dtype = statistics_dtype(x.dtype)
    if not isinstance(log_scale, torch.Tensor):
        if not isinstance(log_scale, Real):
            raise TypeError(f"log_scale must be a number or a torch.Tensor; got {type(log_scale).__name__}")
        # Filled on the device: copying a number to it would make the host wait.
        return torch.full((), float(log_scale), dtype=dtype, device=x.device)
    if log_scale.numel() != 1:
        raise ValueError(f"log_scale must be a scalar; got shape {tuple(log_scale.shape)}")
    return log_scale.to(x.device, dtype, non_blocking=x.is_cuda).reshape(())


def _send(
    candidates: tuple[list[torch.Tensor], ...], group: dist.ProcessGroup | None
) -> list[Callable[[], torch.Tensor]]:
    """Starts gathering each of `candidates`. Each function it returns waits for the other ranks' rows."""
    if group is None:
        return []
    check_member(group)
    if dist.get_world_size(group) == 1:
        return []
    rows = [torch.cat(parts) if len(parts) > 1 else parts[0] for parts in candidates]
    gatherings = [Gathering(counts, group) for counts in exchange_counts(rows, group)]
    sent = [gathering.send(r) for gathering, r in zip(gatherings, rows, strict=True)]
    return [partial(gathering.receive, s) for gathering, s in zip(gatherings, sent, strict=True)]
