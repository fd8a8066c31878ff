"""contrastive_loss: in-batch contrastive losses in both directions, over the candidates of all ranks (SPEC 8)."""

from __future__ import annotations

import math
from numbers import Real
from typing import NamedTuple

import torch
import torch.distributed as dist

from reserve_kernels.checks import FLOATING, check_integer, check_real, check_same_device, check_tensor
from reserve_kernels.contrastive.availability import BACKENDS
from reserve_kernels.contrastive.gather import check_member
from reserve_kernels.contrastive.reference import NO_MAX_LOG_SCALE, STANDARD, Scaling, statistics_dtype
from reserve_kernels.contrastive.ring import ring_losses
from reserve_kernels.contrastive.sigmoid_loss import check_backend, sigmoid_losses
from reserve_kernels.contrastive.softmax_loss import Choice, Labels, softmax_losses
from reserve_kernels.contrastive.targets import Targets, check_targets
from reserve_kernels.transforms import refuse_transforms

__all__ = ["ContrastiveLoss", "Targets", "contrastive_loss"]

KINDS = ("softmax", "sigmoid")
EXCHANGES = ("gather", "ring")


class ContrastiveLoss(NamedTuple):
    """`x_to_y`, `y_to_x`: [pairs], each vector's loss; `loss`: a scalar of both, as `contrastive_loss` says.

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
    kind: str = "softmax",
    bias: torch.Tensor | float | None = None,
    targets: Targets | tuple[Targets, Targets] | None = None,
    normalize: bool = True,
    max_scale: float | None = 100.0,
    x_extra: torch.Tensor | None = None,
    y_extra: torch.Tensor | None = None,
    group: dist.ProcessGroup | None = None,
    exchange: str = "gather",
    backend: str = "auto",
    logits_budget: int | None = None,
) -> ContrastiveLoss:
    """Contrastive loss of pairs (x[i], y[i]) against all candidates, in both directions (SPEC 8).

    Vectors are scaled to v / sqrt(sum v^2 + 1e-5) * exp(s / 2), s = min(log_scale, ln 100), and rounded to their
    dtype. A logit is the product of two.

    - `kind="softmax"` (CLIP): the loss of x[i] is the logsumexp of its logits with all y and y_extra of all ranks,
      minus its logit with y[i]; the loss of y[i] likewise over all x and x_extra. `loss` is the mean over both
      directions of the mean over pairs.
    - `kind="sigmoid"` (SigLIP): every logit, plus `bias`, has a loss of its own: -log sigmoid(logit) for a pair, and
      -log sigmoid(-logit) for all others. The loss of x[i] is the sum over all y and y_extra of all ranks; that of y[i]
      over all x and x_extra. `loss` is the sum of all losses, each counted once, over the number of pairs: with several
      ranks, of x with everyone's y and y_extra, and of y with everyone's x_extra. Memory is linear in the vectors.

    Args:
        x, y: [pairs, dim], before normalisation; float16, bfloat16, float32 or float64, one dtype.
        log_scale: logarithm of the inverse temperature, a number or a tensor with one element; a tensor that requires a
            gradient gets one. Keep the tensor on x's device: otherwise the host waits for its gradient.
        kind: "softmax" or "sigmoid".
        bias: what "sigmoid" adds to the logits, like `log_scale` a number or a tensor with one element. None: 0.
        targets: label weights in place of x[i] with y[i]. Row i of `Targets` has the positives of x[i]; columns
            count the rows of y, then those of y_extra. For "softmax" the loss of x[i] is
            sum_j w_ij (logsumexp_i - logit_ij), which for weights that add up to 1 is the cross-entropy with soft
            targets. Weights are taken as they are; without them the positives of a row share 1 equally, as in
            supervised contrastive learning (arXiv 2004.11362, equation 2). A row without entries has loss 0. The rows
            of y[j] are the transpose, with shares of their own where there are no weights; or, in a tuple (of x,
            of y), a second `Targets`, whose columns count the rows of x, then those of x_extra. For "sigmoid" a weight
            from 0 to 1 is the target of its logit, t: the loss is -t log sigmoid(logit) - (1 - t) log sigmoid(-logit);
            without weights t is 1. Weights get no gradient. Not for several ranks. Values are validated on the CPU
            only: on a GPU the host would wait for them. There a column that is no candidate is an error of the device
            for "softmax" and left out by "sigmoid", and other invalid values give wrong results.
        normalize: False takes the vectors as they are, times exp(s / 2).
        max_scale: upper bound of exp(log_scale), beyond which log_scale has no gradient; None for no bound.
        x_extra, y_extra: [*, dim], candidates without a pair: negatives only, unless `targets` says otherwise.
        group: process group whose ranks' vectors are all candidates, with gradients; None for this process alone.
            Ranks may have different numbers of pairs. Each rank's loss is over its own pairs, and gradients are
            those of the sum of the ranks' losses: averaging parameter gradients over ranks, as DDP does, gives those
            of the mean. All ranks must request the gradients of the same inputs, from the same outputs. The host reads
            the ranks' counts, the only wait for a GPU.
        exchange: how the vectors of other ranks arrive. "gather": all at once, which overlaps with the logits among
            this rank's own vectors, in the backward pass too; they stay in memory. "ring": y of one rank at a time
            passes from rank to rank while the logits with the one before are computed, and again in the backward pass,
            with its gradient; a rank holds two others' at a time. Each block of logits is computed once for both
            directions, and again in the backward pass. "sigmoid" always goes round the ring. Without several ranks
            there is nothing to exchange, and it changes nothing.
        backend: "auto" or a name from `reserve_kernels.backends()`. "dense" stores the logits for the backward pass;
            "triton" (CUDA) and "chunked" compute them again there, which takes four matrix products instead of three
            and never holds [pairs, candidates]. "auto" stores them where a gradient will be asked for and they fit
            `logits_budget`. For "sigmoid", "auto" makes the gradients of `loss` in the forward pass, three products in
            all; if x_to_y or y_to_x has a gradient too, three more follow. "chunked" makes them in the backward pass.
            Of up to 512 pairs on a CPU, without targets and extras, "auto" stores the gradients of the logits.
            A ring's blocks are always computed by PyTorch's products.
        logits_budget: bytes that "auto" may store for the backward pass, for all problems of this call together: x with
            y, then x with y_extra and the other ranks' candidates, then y with x_extra and the other ranks'. Each
            problem that fits what is left is stored, and the others are computed again. Stored are the logits and the
            scaled vectors of both sides, 4 bytes a number, 8 for float64; by Triton only the logits, 2 bytes each for
            half-precision vectors, in rows of a multiple of 16, and up to 8 bytes for each 64 of them. None: 1 GiB.
            Back ends by name, "sigmoid" and a ring take no notice.

    Raises:
        TypeError, ValueError: an argument has a wrong type, dtype, shape, device or value; the message names it.
        RuntimeError: the named backend cannot run here; or a double backward, which is not implemented.
        NotImplementedError: under vmap, forward-mode differentiation or torch.func.grad and its relatives.

    NaN inputs give NaN losses. Rows whose squares would overflow are scaled down first.
    It is deterministic, but for `targets` on a GPU. Without a group it compiles with fullgraph=True.
    """
    _check("x", x, None)
    for name, value in [("y", y), ("x_extra", x_extra), ("y_extra", y_extra)]:
        if value is not None:
            _check(name, value, x)
    if y.shape != x.shape:
        raise ValueError(f"y must pair with x's shape {tuple(x.shape)}; got {tuple(y.shape)}")
    if kind not in KINDS:
        raise ValueError(f"kind must be 'softmax' or 'sigmoid'; got {kind!r}")
    if exchange not in EXCHANGES:
        raise ValueError(f"exchange must be 'gather' or 'ring'; got {exchange!r}")
    of_scale = log_scale if isinstance(log_scale, torch.Tensor) else None
    of_bias = bias if isinstance(bias, torch.Tensor) else None
    refuse_transforms("contrastive_loss", x, y, x_extra, y_extra, of_scale, of_bias)
    log_scale = _checked_scalar("log_scale", log_scale, x)
    if kind == "softmax" and bias is not None:
        raise ValueError("bias is for kind='sigmoid': it does not change a softmax")
    budget = LOGITS_BUDGET if logits_budget is None else logits_budget
    check_integer("logits_budget", budget, 0)
    if kind == "sigmoid":
        check_backend(backend, x)
    elif backend != "auto":
        BACKENDS.choose(backend, x.device, x.dtype)
    scaling = _checked_scaling(normalize, max_scale)
    if group is not None:
        check_member(group)
    # A group of one rank has nothing to exchange.
    several = group is not None and dist.get_world_size(group) > 1
    labels = None
    if targets is not None:
        if several:
            raise ValueError("targets must be None with a group of several ranks")
        labels = _checked_labels(targets, x, y, kind)
    vectors = (x, y, x_extra, y_extra)
    if kind == "softmax" and not (several and exchange == "ring"):
        choice = Choice(backend, budget)
        return ContrastiveLoss(*softmax_losses(*vectors, log_scale, labels, scaling, group, choice))
    offset = None if kind == "softmax" else _checked_scalar("bias", 0.0 if bias is None else bias, x)
    if several:
        assert group is not None
        return ContrastiveLoss(*ring_losses(*vectors, log_scale, offset, scaling, group))
    assert offset is not None
    of_x = None if labels is None else labels.of_x
    return ContrastiveLoss(*sigmoid_losses(*vectors, log_scale, offset, of_x, scaling, backend))


LOGITS_BUDGET = 1 << 30
"""Bytes that "auto" may store unless the caller says."""


def _check(name: str, value: torch.Tensor, x: torch.Tensor | None) -> None:
    check_tensor(name, value, FLOATING if x is None else (x.dtype,))
    if value.dim() != 2:
        raise ValueError(f"{name} must be [rows, dim]; got shape {tuple(value.shape)}")
    if x is not None:
        check_same_device(name, value, "x", x)
        if value.shape[1] != x.shape[1]:
            raise ValueError(f"{name} must have x's dim {x.shape[1]}; got {value.shape[1]}")


def _checked_scalar(name: str, value: torch.Tensor | float, x: torch.Tensor) -> torch.Tensor:
    """`value` as a 0-d tensor on x's device, in the dtype of the statistics."""
    dtype = statistics_dtype(x.dtype)
    if not isinstance(value, torch.Tensor):
        if not isinstance(value, Real):
            raise TypeError(f"{name} must be a number or a torch.Tensor; got {type(value).__name__}")
        # Filled on the device: copying a number to it would make the host wait.
        return torch.full((), float(value), dtype=dtype, device=x.device)
    if value.numel() != 1:
        raise ValueError(f"{name} must be a scalar; got shape {tuple(value.shape)}")
    if value.is_complex():
        raise TypeError(f"{name} must be real; got {value.dtype}")
    value = value.to(x.device, dtype, non_blocking=x.is_cuda)
    # A view takes a node of autograd more, which the smallest calls would notice.
    return value if value.dim() == 0 else value.reshape(())


def _checked_scaling(normalize: object, max_scale: float | None) -> Scaling:
    if normalize is True and type(max_scale) is float and max_scale == 100.0:
        return STANDARD  # without a logarithm and objects that the smallest calls would notice
    if not isinstance(normalize, bool):
        raise TypeError(f"normalize must be True or False; got {normalize!r}")
    if max_scale is None:
        return Scaling(normalize, NO_MAX_LOG_SCALE)
    check_real("max_scale", max_scale)
    if max_scale <= 0:
        raise ValueError(f"max_scale must be above 0; got {max_scale!r}")
    return Scaling(normalize, math.log(max_scale))


def _checked_labels(
    targets: object,
    x: torch.Tensor,
    y: torch.Tensor,
    kind: str,
) -> Labels:
    of_x, of_y = targets, None
    # Targets is a tuple itself.
    if type(targets) is tuple:
        if kind == "sigmoid":
            raise ValueError("targets must be one Targets for kind='sigmoid': a logit has one target")
        if len(targets) != 2:
            raise ValueError(f"targets must be Targets or two of them, of x and of y; got {len(targets)}")
        of_x, of_y = targets
    checked = check_targets("targets", of_x, x)
    return Labels(checked, None if of_y is None else check_targets("targets[1]", of_y, y))
