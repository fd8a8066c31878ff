"""Training steps on random batches, with our ops or other back ends, and the FLOPs that a step needs."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self
from unittest import mock

import torch
from torch import nn

from reserve.batch.movable import Movable
from reserve.config import Config, DataConfig, ModelConfig, TrainConfig
from reserve.model import transformer
from reserve.model.merlot_reserve import MerlotReserve
from reserve.model.transformer import HEAD_SIZE, Attention, Mlp
from reserve.tasks.pretrain import objective
from reserve.tasks.pretrain.batch import PretrainBatch
from reserve.tasks.pretrain.dataset import collate
from reserve.tasks.pretrain.objective import pretrain_pairs
from reserve.tasks.pretrain.random_examples import RandomExamples
from reserve.tasks.pretrain.task import Pretrain
from reserve.tasks.task import Loss
from reserve.train.distributed import Ranks
from reserve.train.fit import set_learning_rate, train_step
from reserve.train.optimizer import make_optimizer
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
        init_scale=5.0,
    ),
    train=TrainConfig(precision="float32"),
)
"""The shapes of the smallest model that the released code was run with, for docs/parity.md. With initial kernels of its
scale, gradients would be so small that bfloat16 rounds them away."""
BASE, LARGE = Config(), Config(model=ModelConfig(hidden_size=1024, vit_num_layers=24, joint_num_layers=24))


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
    """The model, its weights drawn on the device: on the host that takes a minute, and more for the large model."""
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
        return train_step(self.loss, self.optimizer, self.batch, self.config, self.ranks)

    def _own_loss(self, batch: PretrainBatch) -> Loss:
        return self.task.loss(self.model, batch, None)

    def loss_and_gradient(self) -> list[torch.Tensor]:
        """The loss and the norm of its gradient for each parameter; it does not change the weights."""
        with torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self.config.train.precision == "bfloat16"):
            loss = self.loss(self.batch).total
        gradients = torch.autograd.grad(loss, list(self.model.parameters()))
        return [loss.detach(), torch.stack([gradient.norm() for gradient in gradients])]


class ForwardCounter:
    """FLOPs of the matrix products of a forward and backward pass, counted while the forward pass runs.

    It counts linear layers, and attention between tokens that attend to each other. It does not count norms,
    activations, pooling, the optimiser, recomputation or padding.
    """

    def __init__(self, model: nn.Module) -> None:
        self.flops = 0
        hooks: dict[type[nn.Module], Callable[..., None]] = {
            nn.Linear: self._linear,
            Attention: self._attention,
            Mlp: self._mlp,
        }
        self._handles = [
            module.register_forward_pre_hook(hook)
            for module in model.modules()
            for kind, hook in hooks.items()
            if isinstance(module, kind)
        ]

    def _mlp(self, module: Mlp, args: tuple[torch.Tensor]) -> None:
        # Its first layer is no call of a module, since the activation adds the bias.
        self._linear(module.intermediate, args)

    def _linear(self, module: nn.Linear, args: tuple[torch.Tensor]) -> None:
        rows = args[0].numel() // module.in_features
        # Forward, the weights' gradient, and the input's if it has one.
        passes = 2 + args[0].requires_grad
        self.flops += passes * 2 * rows * module.in_features * module.out_features

    def _attention(self, module: Attention, args: tuple[torch.Tensor, torch.Tensor, int, torch.Tensor]) -> None:
        lengths = args[1].diff().double()
        heads = module.projection.in_features // HEAD_SIZE
        self.flops += int(14 * HEAD_SIZE * heads * lengths.square().sum())

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def step_flops(model: MerlotReserve, batch: PretrainBatch) -> int:
    """FLOPs that a training step on `batch` needs, the loss's logits included; see `ForwardCounter`."""
    counter = ForwardCounter(model)
    try:
        # Layers that were compiled before do not call the counter's hooks.
        with torch.compiler.set_stance("force_eager"):
            pairs = pretrain_pairs(model, batch)
    finally:
        counter.remove()
    losses = sum(6 * len(p.x) * (len(p.y) + (0 if p.y_extra is None else len(p.y_extra))) * p.x.shape[1] for p in pairs)
    return counter.flops + losses
