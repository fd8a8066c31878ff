"""In place of open_clip's losses."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist

from reserve_kernels.contrastive import ContrastiveLoss, contrastive_loss

__all__ = ["ClipLoss", "SigLipLoss"]


class ClipLoss(torch.nn.Module):
    """open_clip.ClipLoss: features that the caller normalised, [pairs, dim] each -> a scalar.

    The arguments are those of the original, horovod aside. With several ranks the loss, and the gradients of the
    features, are the original's for each `local_loss` and `gather_with_grad`; those of `logit_scale` are after
    averaging over ranks, as DistributedDataParallel does. Ranks have equally many pairs.
    """

    def __init__(
        self,
        local_loss: bool = False,
        gather_with_grad: bool = False,
        cache_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
        use_horovod: bool = False,
    ) -> None:
        """`cache_labels` changes nothing: there are no labels. Raises NotImplementedError for horovod."""
        super().__init__()
        if use_horovod:
            raise NotImplementedError("use_horovod must be False: the vectors are exchanged by torch.distributed")
        self.local_loss, self.gather_with_grad, self.cache_labels = local_loss, gather_with_grad, cache_labels
        self.rank, self.world_size = rank, world_size

    def forward(
        self,
        image_features: torch.Tensor,
        text_features: torch.Tensor,
        logit_scale: torch.Tensor | float,
        logit_bias: torch.Tensor | float | None = None,
        output_dict: bool = False,
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """`logit_scale` is above 0. `logit_bias` changes nothing but has a gradient, 0."""
        loss = self._loss(image_features, text_features, _log(logit_scale))
        if logit_bias is not None:
            # In the graph, as in the original: DistributedDataParallel wants a gradient of every parameter.
            loss = loss + 0.0 * logit_bias
        return {"contrastive_loss": loss} if output_dict else loss

    def _loss(self, x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor | float) -> torch.Tensor:
        if self.world_size == 1:
            return _clip(x, y, log_scale, None).loss
        group = dist.group.WORLD
        if self.local_loss and not self.gather_with_grad:
            # Each side is differentiated against what the other ranks, and this one, sent without a gradient.
            of_x = _clip(x, y.detach(), log_scale, group).x_to_y.mean()
            return (of_x + _clip(x.detach(), y, log_scale, group).y_to_x.mean()) / 2
        if not self.gather_with_grad:
            # The op's gradients are of the sum of the ranks' losses. The original's are of their mean, on each rank.
            x, y = (_with_gradient_times(v, 1 / self.world_size) for v in (x, y))
        loss = _clip(x, y, log_scale, group).loss
        if self.local_loss:
            return loss
        mean = loss.detach().clone()
        dist.all_reduce(mean, group=group)
        return loss + (mean / self.world_size - loss.detach())


class SigLipLoss(torch.nn.Module):
    """open_clip.SigLipLoss: features that the caller normalised, [pairs, dim] each -> a scalar.

    The arguments are those of the original, whose ways to exchange texts (`dist_impl`) give one result: this passes
    them round a ring. Memory is linear in the pairs.
    """

    def __init__(
        self, cache_labels: bool = False, rank: int = 0, world_size: int = 1, dist_impl: str | None = None
    ) -> None:
        super().__init__()
        if dist_impl not in (None, "bidir", "shift", "reduce", "gather"):
            raise ValueError(f"dist_impl must be 'bidir', 'shift', 'reduce' or 'gather'; got {dist_impl!r}")
        self.cache_labels, self.rank, self.world_size = cache_labels, rank, world_size
        self.dist_impl = dist_impl or "bidir"

    def forward(
        self,
        image_features: torch.Tensor,
        text_features: torch.Tensor,
        logit_scale: torch.Tensor | float,
        logit_bias: torch.Tensor | float | None,
        output_dict: bool = False,
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """`logit_scale` is above 0."""
        loss = contrastive_loss(
            image_features,
            text_features,
            _log(logit_scale),
            kind="sigmoid",
            bias=logit_bias,
            normalize=False,
            max_scale=None,
            group=dist.group.WORLD if self.world_size > 1 else None,
        ).loss
        return {"contrastive_loss": loss} if output_dict else loss


def _clip(x: torch.Tensor, y: torch.Tensor, log_scale: torch.Tensor | float, group: Any) -> ContrastiveLoss:
    return contrastive_loss(x, y, log_scale, normalize=False, max_scale=None, group=group)


def _log(scale: torch.Tensor | float) -> torch.Tensor | float:
    return scale.log() if isinstance(scale, torch.Tensor) else math.log(scale)


def _with_gradient_times(x: torch.Tensor, factor: float) -> torch.Tensor:
    """`x`, whose gradient is multiplied by `factor`."""
    return x * factor + (x * (1 - factor)).detach()
