"""The training step on a GPU: the host queues it and goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reserve.tasks.pretrain.task import Pretrain
from reserve.train.compilation import compile_layers, compiler_fault
from reserve.train.distributed import Ranks
from reserve.train.optimizer import make_optimizer
from reserve.train.parallel import parallelize
from reserve.train.step import set_learning_rate, train_step
from tests.helpers.tiny_steps import tiny_batch, tiny_run

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

GPU = Ranks(0, 1, torch.device("cuda"))


@pytest.mark.parametrize(("accumulate", "grad_cache"), [(1, False), (2, False), (2, True)])
@pytest.mark.parametrize("layers", ["eager", "compiled", "recomputed"])
def test_a_step_does_not_wait_for_the_gpu(layers, accumulate, grad_cache):
    """From pinned memory, with batches of other sizes than those of the first step, which may compile and allocate."""
    config = tiny_run(precision="bfloat16", accumulate=accumulate, batch_size=2 * accumulate)
    config = replace(config, optimizer=replace(config.optimizer, max_grad_norm=1.0))
    task = Pretrain.of(config)
    torch.manual_seed(0)
    model = task.build_model().to(GPU.device)
    if layers == "compiled":
        if fault := compiler_fault("cuda"):
            pytest.skip(fault)
        compile_layers(model, "layers", GPU.device)
    for module in model.modules():
        if hasattr(module, "recompute"):
            module.recompute = layers == "recomputed"
    module = parallelize(model, task.vectors if grad_cache else lambda inner, batch: task.loss(inner, batch, None), GPU)
    whole = (lambda parts: task.vectors_loss(parts, None)) if grad_cache else None
    optimizer = make_optimizer(model, task.parameter_groups(model, config.optimizer), config.optimizer)
    steps = [[tiny_batch(seed=3 * step + part).pin_memory() for part in range(accumulate)] for step in range(3)]
    reported = []
    for number, micro_batches in enumerate(steps):
        set_learning_rate(optimizer, number, config.optimizer)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("default" if number == 0 else "error")
        try:
            reported.append(train_step(module, optimizer, micro_batches, config, GPU, step=number, vectors_loss=whole))
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert all(value.isfinite() for values in reported for value in values.values())
