"""Steps that change nothing, and replacing ops by other back ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.padded_model import PaddedModel, padded_batch
from benchmarks.step_cases import SMALL, Step, comparable, random_batch, replaced_ops
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.pretrain.objective import pretrain_loss, pretrain_pairs


def test_steps_without_a_learning_rate_do_not_change_weights():
    still = replace(SMALL, optimizer=replace(SMALL.optimizer, learning_rate=0.0))
    step = Step(still, random_batch(SMALL, 1), torch.device("cpu"))
    loss, norms = step.loss_and_gradient()
    step()
    after, norms_after = step.loss_and_gradient()
    assert after == loss
    assert torch.equal(norms, norms_after)
    assert len(norms) == len(list(step.model.parameters()))


def test_comparable_steps_in_bfloat16_are_close_to_float32():
    """With the reference's initial kernels both models' gradient norms are half of them off."""
    plain = comparable(SMALL)
    half = replace(plain, train=replace(plain.train, precision="bfloat16"))
    batch = random_batch(plain, 2)
    exact, ours = (Step(config, batch, torch.device("cpu")) for config in (plain, half))
    padded = ours.variant(PaddedModel(ours.model).loss, padded_batch(batch, half, torch.bfloat16))
    _, norms = exact.loss_and_gradient()
    for step in (ours, padded):
        _, rounded = step.loss_and_gradient()
        assert 1e-5 < (rounded - norms).norm() / norms.norm() < 0.02


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
