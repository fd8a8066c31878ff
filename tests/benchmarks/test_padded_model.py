"""The padded model computes what ours does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.padded_model import PaddedModel, padded_batch
from benchmarks.step_cases import SMALL, random_batch
from reserve.config import ModelConfig
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.pretrain.task import Pretrain


def test_loss_and_gradients_equal_ours_in_float64():
    torch.manual_seed(0)
    model, batch = MerlotReserve(SMALL.model).double(), random_batch(SMALL, 3)
    sequences = sum(len(rows) for rows in batch.joint.rows.values())
    assert len(batch.joint.cu_seqlens) - 1 > sequences, "some sequence must hold two videos, which the mask separates"
    ours = Pretrain.of(SMALL).loss(model, batch, None).total
    theirs = PaddedModel(model).loss(padded_batch(batch, SMALL, torch.float64)).total
    torch.testing.assert_close(theirs, ours, rtol=1e-10, atol=0)
    names, parameters = zip(*model.named_parameters(), strict=True)
    expected, computed = (torch.autograd.grad(loss, parameters) for loss in (ours, theirs))
    # The pools' key biases cancel in the softmax: their gradients are rounding errors.
    noise = 1e-12 * torch.stack([gradient.norm() for gradient in expected]).max()
    for name, a, b in zip(names, computed, expected, strict=True):
        assert (a - b).norm() <= 1e-9 * b.norm() + noise, name


def test_shapes_do_not_depend_on_the_batch():
    first, second = (padded_batch(random_batch(SMALL, 2, seed=seed), SMALL) for seed in (0, 1))
    assert first.joint_ids.shape == second.joint_ids.shape == (12, SMALL.data.seq_len)
    assert first.span_ids.shape == second.span_ids.shape == (36, 1 + SMALL.model.text_span_length)


def test_a_rotation_is_refused():
    config = replace(SMALL, model=ModelConfig(**{**vars(SMALL.model), "rotary": "standard"}))
    with pytest.raises(ValueError, match="standard"):
        padded_batch(random_batch(SMALL, 1), config)
