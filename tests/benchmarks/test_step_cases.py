"""Steps that change nothing, and replacing ops by other back ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.step_cases import SMALL, Step, random_batch, replaced_ops
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
