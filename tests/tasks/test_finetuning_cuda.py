"""Finetuning on a GPU: the same numbers as on a CPU, and a host that does not wait."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from reserve.config import FitConfig, TrainConfig
from reserve.tasks.finetuning import finetuning_optimizer
from reserve.train.distributed import Ranks
from reserve.train.optimizer import make_optimizer
from reserve.train.parallel import parallelize
from reserve.train.step import set_learning_rate, train_step
from tests.helpers.finetuning_batches import finetuned_task, finetuning_batch
from tests.helpers.tiny import tiny

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

SIZES = tiny(vocab_size=50)
TASKS = ("vcr", "tvqa", "kinetics600")
STEPS = 3


def steps(name: str, device: str, precision: str) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The losses of some steps and the weights after them."""
    task, ranks = finetuned_task(name, SIZES), Ranks(0, 1, torch.device(device))
    optimizer_config = replace(finetuning_optimizer(1e-3), num_train_steps=10, num_warmup_steps=1)
    config = FitConfig(optimizer=optimizer_config, train=TrainConfig(batch_size=2, precision=precision))
    torch.manual_seed(0)
    model = task.build_model().to(ranks.device)
    module = parallelize(model, lambda inner, batch: task.loss(inner, batch, None), ranks)
    groups = task.parameter_groups(model, optimizer_config)
    optimizer = make_optimizer(model, groups, optimizer_config, decay_to_start=True)
    losses = []
    for number in range(STEPS):
        set_learning_rate(optimizer, number, optimizer_config, finetuning=True)
        batch = finetuning_batch(name, SIZES, seed=number)
        batch = batch.pin_memory() if device == "cuda" else batch
        if device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("default" if number == 0 else "error")
        try:
            values = train_step(module, optimizer, [batch], config, ranks)
        finally:
            if device == "cuda":
                torch.cuda.set_sync_debug_mode("default")
        losses.append(values["loss"])
    return [float(loss) for loss in losses], copy.deepcopy({n: p.detach().cpu() for n, p in model.named_parameters()})


@pytest.mark.parametrize("name", TASKS)
def test_steps_are_those_of_a_cpu_and_do_not_wait(name: str) -> None:
    expected, weights = steps(name, "cpu", "float32")
    losses, found = steps(name, "cuda", "float32")
    assert losses == pytest.approx(expected, rel=1e-4)
    for parameter, value in found.items():
        # Adam turns the rounding of a tiny gradient into a step.
        assert (value - weights[parameter]).abs().mean() < 1e-4, parameter


@pytest.mark.parametrize("name", TASKS)
def test_steps_in_bfloat16_come_close(name: str) -> None:
    expected, _ = steps(name, "cpu", "float32")
    losses, _ = steps(name, "cuda", "bfloat16")
    assert losses == pytest.approx(expected, rel=0.02)
