"""A step of each finetuned task: every weight that it should move moves, and nothing leaks between examples."""

from __future__ import annotations

import pytest
import torch

from reserve.cli.finetune import TASKS
from reserve.model.flops import Workload
from reserve.tasks.decay import parameter_groups
from tests.helpers.finetuning_batches import finetuned_task, finetuning_batch
from tests.helpers.tiny import tiny

SIZES = tiny(vocab_size=50)
UNUSED = ("contrastive_scales", "cls_projection")
"""What no finetuned task reads: temperatures, and the encodings of whole frames and sounds."""


@pytest.mark.parametrize("name", TASKS)
def test_the_loss_reaches_every_weight_that_the_task_reads(name: str) -> None:
    task = finetuned_task(name, SIZES)
    torch.manual_seed(0)
    model = task.build_model()
    # One of the clips of this seed has sound.
    loss = task.loss(model, finetuning_batch(name, SIZES, seed=1), None)
    loss.total.backward()
    assert loss.total.isfinite()
    without = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert all(any(part in n for part in UNUSED) for n in without), without


@pytest.mark.parametrize("name", TASKS)
def test_workload_counts_the_batch(name: str) -> None:
    work = finetuned_task(name, SIZES).workload(finetuning_batch(name, SIZES))
    assert isinstance(work, Workload)
    assert work.tokens > 0


@pytest.mark.parametrize("name", TASKS)
def test_large_tensors_decay_toward_their_start(name: str) -> None:
    model = finetuned_task(name, SIZES).build_model()
    decaying, still = parameter_groups(model, 0.1, finetuning=True)
    assert (decaying["weight_decay"], still["weight_decay"]) == (0.1, 0.0)
    assert min(p.numel() for p in decaying["params"]) > 4096
    assert any(p is model.proj.weight for p in still["params"])
