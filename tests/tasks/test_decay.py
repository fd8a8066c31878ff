"""Which parameters decay in pretraining and in finetuning."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from reserve.checkpoint.official_layout import parameter_entries
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.decay import parameter_groups
from reserve_kernels import BF16AdamW
from tests.helpers.tiny import tiny


@pytest.fixture(scope="module")
def model() -> MerlotReserve:
    return MerlotReserve(tiny(vocab_size=60, output_grid=(12, 20)))


def names_of(model: MerlotReserve, group: dict) -> set[str]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[parameter] for parameter in group["params"]}


def test_decay_is_for_what_has_several_axes_in_the_official_layout(model: MerlotReserve) -> None:
    decayed, plain = parameter_groups(model, 0.1)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert names_of(model, decayed) | names_of(model, plain) == {name for name, _ in model.named_parameters()}
    assert not names_of(model, decayed) & names_of(model, plain)
    # Biases with heads count as matrices there; other vectors do not.
    assert "joint_transformer.layers.0.attention.qkv.bias" in names_of(model, decayed)
    assert {f"vision_encoder.pool.{part}.bias" for part in ("query", "key", "value")} <= names_of(model, decayed)
    for name in ("vision_encoder.pool.out.bias", "head.bias", "contrastive_scales", "audio_encoder.encoder.cls"):
        assert name in names_of(model, plain)
    assert all(name in names_of(model, plain) for name, _ in model.named_parameters() if "norm" in name)


def test_finetuning_decays_large_matrices_only(model: MerlotReserve) -> None:
    decayed, _ = parameter_groups(model, 0.1, finetuning=True)
    expected = {
        entry.torch
        for entry in parameter_entries(model.config)
        if len(entry.shape) > 1 and math.prod(entry.shape) > 4096
    }
    assert names_of(model, decayed) == expected
    assert "head.weight" not in expected  # 64 * 64 is 4096, not more
    assert "joint_transformer.layers.0.attention.qkv.weight" in expected
    assert "token_embedding.weight" not in expected  # 60 * 64


def test_finetuning_step_pulls_toward_the_start(model: MerlotReserve) -> None:
    tuned = copy.deepcopy(model)
    groups = parameter_groups(tuned, 0.5, finetuning=True)
    optimizer = BF16AdamW(groups, lr=0.1, moments="float32", bias_correction=True, decay_to_start=True)
    weight = tuned.joint_transformer.layers[0].attention.qkv.weight
    start = weight.detach().bfloat16().float()
    for parameter in tuned.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    with torch.no_grad():
        weight.add_(1.0)
    before = weight.detach().clone()
    optimizer.step()
    torch.testing.assert_close(weight.detach(), before - 0.1 * 0.5 * (before - start))


def test_a_subclass_with_a_head_leaves_nothing_out(model: MerlotReserve) -> None:
    tuned = copy.deepcopy(model)
    tuned.register_module("classifier", torch.nn.Linear(64, 80))
    decayed, plain = parameter_groups(tuned, 0.1)
    assert names_of(tuned, decayed) | names_of(tuned, plain) == {name for name, _ in tuned.named_parameters()}
    assert "classifier.weight" in names_of(tuned, decayed)
    assert "classifier.bias" in names_of(tuned, plain)
    assert "classifier.weight" in names_of(tuned, parameter_groups(tuned, 0.1, finetuning=True)[0])


def test_frozen_parameters_are_left_out(model: MerlotReserve) -> None:
    frozen = copy.deepcopy(model)
    frozen.vision_encoder.requires_grad_(False)
    names = set().union(*(names_of(frozen, group) for group in parameter_groups(frozen, 0.1)))
    assert names == {name for name, _ in frozen.named_parameters() if not name.startswith("vision_encoder.")}
