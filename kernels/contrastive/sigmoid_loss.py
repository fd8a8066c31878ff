"""The sigmoid loss: each pair of vectors is a question of its own, whether they belong together."""

from __future__ import annotations

import torch

from reserve_kernels.contrastive.availability import BACKENDS, ContrastiveBackend
from reserve_kernels.contrastive.reference import Scaling
from reserve_kernels.contrastive.sigmoid_ops import WAYS, Direct, contrastive_sigmoid
from reserve_kernels.contrastive.sigmoid_small import Small, is_small
from reserve_kernels.contrastive.targets import Targets
from reserve_kernels.transforms import is_plain


def way_of(backend: str, *tensors: torch.Tensor | None) -> str:
    """One of WAYS. "auto" makes the gradients of the loss in the forward pass if one of `tensors` will ask for them."""
    if backend != "auto":
        return backend
    wanted = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    return "forward" if wanted else "chunked"


def check_backend(backend: str, x: torch.Tensor) -> None:
    """Raises ValueError or RuntimeError unless `backend` has the sigmoid loss and can run."""

    def refuse(candidate: ContrastiveBackend) -> str | None:
        return None if candidate.name in WAYS else "it has no kind='sigmoid'"

    BACKENDS.choose(backend, x.device, x.dtype, refuse)


def sigmoid_losses(
    x: torch.Tensor,
    y: torch.Tensor,
    x_extra: torch.Tensor | None,
    y_extra: torch.Tensor | None,
    log_scale: torch.Tensor,
    bias: torch.Tensor,
    targets: Targets | None,
    scaling: Scaling,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The sum of all losses over the number of pairs, and the sums of each x and of each y."""
    way = way_of(backend, x, y, x_extra, y_extra, log_scale, bias)
    scalars, none = (log_scale, bias), (None, None, None)
    labels = none if targets is None else targets
    plain = is_plain(x, y, x_extra, y_extra, *scalars, *labels)
    if plain and way == "forward" and x_extra is y_extra is targets is None and is_small(x):
        return Small.apply(x, y, log_scale, bias, scaling)
    run = Direct.apply if plain else contrastive_sigmoid
    ys = y if y_extra is None else torch.cat((y, y_extra))
    total, x_to_y, columns, *_ = run(x, ys, *scalars, *labels, True, True, way, *scaling)
    y_to_x = columns[: len(y)]
    if x_extra is not None:
        of_extra, rows, *_ = run(y, x_extra, *scalars, *none, False, False, way, *scaling)
        total, y_to_x = total + of_extra, y_to_x + rows
    # A count of at least one, so that no pairs give 0 rather than NaN.
    return total / max(len(x), 1), x_to_y, y_to_x
