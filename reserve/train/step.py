"""One training step: gradients of micro-batches, an update, and the learning rate of the schedule (SPEC 9)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
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

VectorsLoss = Callable[[Sequence[Mapping[str, torch.Tensor]]], Loss]
"""The loss of a batch from the vectors of its micro-batches; see `reserve.tasks.task.ContrastiveTask`."""


def train_step(
    module: Callable[[Any], Any] | nn.Module,
    optimizer: torch.optim.Optimizer,
    micro_batches: Sequence[Movable],
    config: FitConfig,
    ranks: Ranks,
    *,
    step: int | None = None,
    vectors_loss: VectorsLoss | None = None,
) -> dict[str, torch.Tensor]:
    """One step of one rank: the gradient of its micro-batches, then an update.

    `module(batch)` is the loss of a micro-batch, a `Loss`; the step takes the mean gradient. With `vectors_loss`,
    `module(batch)` is a micro-batch's vectors by name, and the step takes the gradient of `vectors_loss(vectors of all
    micro-batches)` (GradCache, https://arxiv.org/abs/2101.06983). `step` seeds torch's generators: the random numbers
    of a micro-batch then depend on train.seed, the step and its place in the batch. None leaves them alone, but for
    the two passes of GradCache, which it seeds alike.

    Returns the metrics, still on the device: the loss and the loss's own metrics, averaged over the micro-batches, and
    `gradient_norm`, the norm of all gradients before they are clipped.
    """
    optimizer.zero_grad(set_to_none=True)
    run = _MicroBatches(module, micro_batches, config, ranks, step)
    reported = run.mean_gradient() if vectors_loss is None else run.whole_gradient(vectors_loss)
    zero_missing_gradients(optimizer)
    norm = clip_gradients(optimizer, config.optimizer.max_grad_norm).to(ranks.device, non_blocking=True)
    optimizer.step()
    means = {name: torch.stack([values[name].float() for values in reported]).mean() for name in reported[0]}
    return means | {"gradient_norm": norm}


@dataclass(frozen=True)
class _MicroBatches:
    """One rank's micro-batches of a step, and how to compute them."""

    module: Callable[[Any], Any] | nn.Module
    batches: Sequence[Movable]
    config: FitConfig
    ranks: Ranks
    step: int | None

    def mean_gradient(self) -> list[dict[str, torch.Tensor]]:
        """Accumulates the mean gradient of the losses; returns what each reports."""
        reported = []
        for number in range(len(self.batches)):
            with self._sync(number):
                loss = self._forward(number, self._seed(number))
                (loss.total / len(self.batches)).backward()
            reported.append(_reported(loss))
        return reported

    def whole_gradient(self, vectors_loss: VectorsLoss) -> list[dict[str, torch.Tensor]]:
        """Accumulates the gradient of the loss of all vectors; returns what the loss reports.

        A first pass without a graph finds the vectors, and the loss their gradients. The second goes through one
        micro-batch after another with these.
        """
        numbers = range(len(self.batches))
        if len(numbers) == 1:
            loss = vectors_loss([self._forward(0, self._seed(0))])
            loss.total.backward()
            return [_reported(loss)]
        seeds = [self._seed(number) for number in numbers]
        if self.step is None:  # the two passes must still draw the same random numbers
            seeds = torch.randint(1 << 62, (len(seeds),), device="cpu").tolist()
        with torch.no_grad():
            found = [self._forward(number, seed) for number, seed in zip(numbers, seeds, strict=True)]
        # Detached first: labels and other tensors of the batch must not get requires_grad.
        leaves = [{name: v.detach().requires_grad_(v.is_floating_point()) for name, v in f.items()} for f in found]
        loss = vectors_loss(leaves)
        loss.total.backward()
        reported = [_reported(loss)]
        for number, seed, leaf in zip(numbers, seeds, leaves, strict=True):
            with self._sync(number):
                self._backward(number, seed, leaf)
        return reported

    def _backward(self, number: int, seed: int | None, leaf: dict[str, torch.Tensor]) -> None:
        """A micro-batch's second pass. Its graph ends with the call, before the next one is made."""
        vectors = {name: v for name, v in self._forward(number, seed).items() if v.requires_grad}
        torch.autograd.backward(list(vectors.values()), [_gradient(leaf[name]) for name in vectors])

    def _forward(self, number: int, seed: int | None) -> Any:
        if seed is not None:
            torch.manual_seed(seed)
        # Moved again by each pass: all micro-batches of a large batch would not fit a device.
        batch = self.batches[number].to(self.ranks.device, non_blocking=True)
        with autocast(self.config.train, self.ranks.device):
            return self.module(batch)

    def _seed(self, number: int) -> int | None:
        if self.step is None:
            return None
        # In the order in which micro-batches share a batch (reserve.data.loader.BatchSampler).
        return micro_batch_seed(self.config.train.seed, self.step, number * self.ranks.world_size + self.ranks.rank)

    def _sync(self, number: int) -> AbstractContextManager[None]:
        """Ranks average their gradients once, in the last backward pass."""
        return nullcontext() if number == len(self.batches) - 1 else without_gradient_sync(self.module)


def _reported(loss: Loss) -> dict[str, torch.Tensor]:
    return {"loss": loss.total.detach(), **loss.metrics}


def _gradient(leaf: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def micro_batch_seed(seed: int, step: int, place: int) -> int:
    """The seed of torch's generators for the `place`-th micro-batch of step `step` of a run: a hash of the three."""
    return int(np.random.SeedSequence([seed, step, place]).generate_state(1, np.uint64)[0])


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
