"""Counting a step's FLOPs, and replacing ops by other back ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.step_cases import SMALL, ForwardCounter, Step, random_batch, replaced_ops, step_flops
from reserve.model.merlot_reserve import MerlotReserve
from reserve.model.transformer import Transformer
from reserve.tasks.pretrain.objective import pretrain_loss, pretrain_pairs


def test_linear_layers_count_as_pytorch_counts_them():
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    x = torch.randn(5, 8)
    counter = ForwardCounter(model)
    with FlopCounterMode(display=False) as mode:
        model(x).sum().backward()
    counter.remove()
    assert counter.flops == mode.get_total_flops()


def test_attention_counts_pairs_that_attend():
    model = Transformer(128, 1, "reserve")
    lengths = [3, 5]
    cu_seqlens = torch.tensor([0, 3, 8], dtype=torch.int32)
    x = torch.randn(8, 128, requires_grad=True)
    counter = ForwardCounter(model)
    model(x, cu_seqlens, 5, torch.randn(8, 16))
    counter.remove()
    linear = 6 * 8 * (3 * 128 * 128 + 128 * 128 + 2 * 4 * 128 * 128)
    assert counter.flops == linear + 14 * 64 * 2 * sum(n * n for n in lengths)


def test_a_step_counts_the_flops_of_pytorch_except_for_attention(monkeypatch):
    # PyTorch does not look into our op, and counts the small products of pooling.
    monkeypatch.setattr(ForwardCounter, "_attention", lambda *_: None)
    batch = random_batch(SMALL, 2)
    model = MerlotReserve(SMALL.model)
    with FlopCounterMode(display=False) as mode:
        pairs = pretrain_pairs(model, batch)
        pretrain_loss(pairs, model.contrastive_scales, batch.targets.span_source).total.backward()
    assert step_flops(model, batch) == pytest.approx(mode.get_total_flops(), rel=0.05)


def test_steps_without_a_learning_rate_do_not_change_weights():
    still = replace(SMALL, optimizer=replace(SMALL.optimizer, learning_rate=0.0))
    step = Step(still, random_batch(SMALL, 1), torch.device("cpu"))
    loss, norms = step.loss_and_gradient()
    step()
    after, norms_after = step.loss_and_gradient()
    assert after == loss
    assert torch.equal(norms, norms_after)
    assert len(norms) == len(list(step.model.parameters()))


def test_replaced_ops_give_the_same_loss():
    batch, model = random_batch(SMALL, 2), MerlotReserve(SMALL.model)

    def loss() -> float:
        pairs = pretrain_pairs(model, batch)
        return pretrain_loss(pairs, model.contrastive_scales, batch.targets.span_source).total.item()

    ours = loss()
    with replaced_ops("reference", "reference"):
        theirs = loss()
    assert theirs == pytest.approx(ours, rel=1e-5)


def test_replaced_ops_name_their_back_end():
    batch, model = random_batch(SMALL, 1), MerlotReserve(SMALL.model)
    with replaced_ops("triton", "reference"), pytest.raises(RuntimeError, match="triton"):
        pretrain_pairs(model, batch)
