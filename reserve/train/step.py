"""One training step: gradients of micro-batches, an update, and the learning rate of the schedule (SPEC 9)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from reserve.batch.movable import Movable
from reserve.config import FitConfig, OptimizerConfig
from reserve.model.precision import autocast
from reserve.tasks.task import Loss
from reserve.train.distributed import Ranks
from reserve.train.optimizer import clip_gradients, zero_missing_gradients
from reserve.train.parallel import without_gradient_sync
from reserve.train.schedule import learning_rate_scale


def train_step(
    module: Callable[[Any], Loss] | nn.Module,
    optimizer: torch.optim.Optimizer,
    micro_batches: Sequence[Movable],
    config: FitConfig,
    ranks: Ranks,
) -> dict[str, torch.Tensor]:
    """One step of one rank: the mean gradient of its micro-batches, then an update.

    `module(batch)` is the loss of a micro-batch. Returns the metrics, still on the device: the loss and the loss's own
    metrics, averaged over the micro-batches, and `gradient_norm`, the norm of all gradients before they are clipped.
    """
    optimizer.zero_grad(set_to_none=True)
    reported = []
    for number, batch in enumerate(micro_batches, 1):
        # Ranks average their gradients once, in the last backward pass.
        with nullcontext() if number == len(micro_batches) else without_gradient_sync(module):
            batch = batch.to(ranks.device, non_blocking=True)
            with autocast(config.train, ranks.device):
                loss = module(batch)
            (loss.total / len(micro_batches)).backward()
        reported.append({"loss": loss.total.detach()} | loss.metrics)
    zero_missing_gradients(optimizer)
    norm = clip_gradients(optimizer, config.optimizer.max_grad_norm)
    optimizer.step()
    means = {name: torch.stack([values[name].float() for values in reported]).mean() for name in reported[0]}
    return means | {"gradient_norm": norm}


def set_learning_rate(
    optimizer: torch.optim.Optimizer, step: int, config: OptimizerConfig, *, finetuning: bool = False
) -> None:
    """Sets every group's learning rate for `step`, counted from 0."""
    scale = learning_rate_scale(
        step,
        num_warmup_steps=config.num_warmup_steps,
        num_train_steps=config.num_train_steps,
        decay="linear" if finetuning else "cosine",
    )
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * scale


def mean_over_ranks(values: dict[str, torch.Tensor], ranks: Ranks) -> dict[str, float]:
    """The ranks' mean of each scalar, as numbers."""
    mean = ranks.mean(torch.stack([value.float() for value in values.values()]))
    return dict(zip(values, mean.tolist(), strict=True))
