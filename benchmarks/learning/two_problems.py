"""Some of the contrastive problems of pretraining, for objectives that leave out others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist

from reserve.tasks.pretrain.objective import PretrainPairs
from reserve_kernels import contrastive_loss


def contrastive_losses(
    parts: Sequence[Mapping[str, torch.Tensor]], problems: Sequence[str], group: dist.ProcessGroup | None
) -> dict[str, torch.Tensor]:
    """The loss of each of the `problems` over the vectors of all micro-batches, as `PretrainPairs.named` names them.

    `log_scales` [3] of the first micro-batch has their temperatures, in the order of PretrainPairs.
    """
    losses = {}
    for problem in problems:
        x, y = (torch.cat([part[f"{problem}.{side}"] for part in parts]) for side in ("x", "y"))
        extra = [part[f"{problem}.y_extra"] for part in parts if f"{problem}.y_extra" in part]
        log_scale = parts[0]["log_scales"][PretrainPairs._fields.index(problem)]
        losses[problem] = contrastive_loss(
            x, y, log_scale, y_extra=torch.cat(extra) if extra else None, group=group
        ).loss
    return losses
