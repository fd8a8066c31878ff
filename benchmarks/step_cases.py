"""Training steps on random batches, with our ops or other back ends."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self
from unittest import mock

import torch

from reserve.batch.movable import Movable
from reserve.config import Config, DataConfig, ModelConfig, TrainConfig
from reserve.model import transformer
from reserve.model.merlot_reserve import MerlotReserve
from reserve.model.precision import autocast, training_dtype
from reserve.tasks.pretrain import objective
from reserve.tasks.pretrain.batch import PretrainBatch
from reserve.tasks.pretrain.dataset import collate
from reserve.tasks.pretrain.random_examples import RandomExamples
from reserve.tasks.pretrain.task import Pretrain
from reserve.tasks.task import Loss
from reserve.train.distributed import Ranks
from reserve.train.optimizer import make_optimizer
from reserve.train.step import set_learning_rate, train_step
from reserve_kernels import contrastive_loss, rotary_attention

SMALL = Config(
    data=DataConfig(num_segments=8, lang_seq_len=160, seq_len=240, text_span_budget=8, num_text_spans_to_include=18),
    model=ModelConfig(
        hidden_size=128,
        vit_num_layers=2,
        output_grid=(4, 6),
        audio_num_layers=2,
        audio_patch_size=5,
        span_num_layers=1,
        joint_num_layers=2,
        init_scale=5.0,
        init_log_scale=1.5,
    ),
    train=TrainConfig(precision="float32"),
)
"""The model of `make demo`; a copy, because reading its file needs a package that a GPU machine may not have."""
GOLDEN = Config(
    data=DataConfig(num_segments=4, lang_seq_len=40, seq_len=52, text_span_budget=6, num_text_spans_to_include=8),
    model=ModelConfig(
        hidden_size=128,
        vit_num_layers=2,
        output_grid=(4, 6),
        audio_num_layers=2,
        span_num_layers=2,
        joint_num_layers=2,
    ),
    train=TrainConfig(precision="float32"),
)
"""The shapes of the smallest model that the released code was run with, for docs/parity.md."""
BASE, LARGE = Config(), Config(model=ModelConfig(hidden_size=1024, vit_num_layers=24, joint_num_layers=24))


def comparable(config: Config) -> Config:
    """`config` for steps whose loss and gradients are compared.

    The learning rate is 0, so that all see the same weights. Initial kernels are five times as large as the
    reference's, with which all candidates are nearly alike at first: gradients are then small differences of large
    numbers, which bfloat16 rounds away.
    """
    return replace(
        config,
        model=replace(config.model, init_scale=5.0),
        optimizer=replace(config.optimizer, learning_rate=0.0),
    )


def random_batch(config: Config, examples: int, *, seed: int = 0) -> PretrainBatch:
    dataset = RandomExamples(examples, config.data, config.model, seed=seed)
    return collate([dataset[0, index] for index in range(examples)], config.data, config.model)


@contextmanager
def replaced_ops(attention: str, contrastive: str) -> Iterator[None]:
    """Makes the model use these back ends for attention and loss."""
    with (
        mock.patch.object(transformer, "rotary_attention", functools.partial(rotary_attention, backend=attention)),
        mock.patch.object(objective, "contrastive_loss", functools.partial(contrastive_loss, backend=contrastive)),
    ):
        yield


def made_on(device: torch.device, config: Config) -> MerlotReserve:
    """The model, its weights drawn on the device: on the host that takes several seconds."""
    torch.manual_seed(0)
    with device:
        return MerlotReserve(config.model)


class Step:
    """Whole training steps on one batch, as the trainer runs them: forward, backward, optimiser."""

    def __init__(self, config: Config, batch: PretrainBatch, device: torch.device) -> None:
        self.config = config
        self.batch: Any = batch.to(device)
        self.model = made_on(device, config)
        self.task, self.ranks = Pretrain.of(config), Ranks(0, 1, device)
        groups = self.task.parameter_groups(self.model, config.optimizer)
        self.optimizer = make_optimizer(self.model, groups, config.optimizer)
        self.loss: Callable[[Any], Loss] = self._own_loss
        self.steps = 0

    def variant(self, loss: Callable[[Any], Loss], batch: Movable) -> Self:
        """Steps of the same model and optimiser that compute the loss in another way, from another batch."""
        other = copy.copy(self)
        other.loss, other.batch = loss, batch.to(self.ranks.device)
        return other

    def __call__(self) -> dict[str, torch.Tensor]:
        set_learning_rate(self.optimizer, self.steps, self.config.optimizer)
        self.steps += 1
        return train_step(self.loss, self.optimizer, [self.batch], self.config, self.ranks)

    @property
    def dtype(self) -> torch.dtype:
        """What the step computes in."""
        return training_dtype(self.config.train, self.ranks.device)

    @property
    def flops(self) -> int:
        """FLOPs of the step, see `reserve.model.flops`."""
        return self.task.workload(self.batch).flops

    def _own_loss(self, batch: PretrainBatch) -> Loss:
        return self.task.loss(self.model, batch, None)

    def loss_and_gradient(self) -> list[torch.Tensor]:
        """The loss and the norm of its gradient for each parameter; it does not change the weights."""
        with autocast(self.config.train, self.ranks.device):
            loss = self.loss(self.batch).total
        gradients = torch.autograd.grad(loss, list(self.model.parameters()))
        return [loss.detach(), torch.stack([gradient.norm() for gradient in gradients])]
