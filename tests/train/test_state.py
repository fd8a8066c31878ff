from __future__ import annotations

import pytest
import torch

from reserve.config import ModelConfig
from reserve.model.merlot_reserve import MerlotReserve
from reserve.train.optimizer import parameter_groups
from reserve.train.state import list_checkpoints, load_trainer_state, save_checkpoint
from reserve_kernels import BF16AdamW

SMALL = ModelConfig(
    hidden_size=64,
    vocab_size=32,
    vit_num_layers=1,
    audio_num_layers=1,
    span_num_layers=1,
    joint_num_layers=1,
    output_grid=(2, 2),
)


@pytest.fixture
def trained():
    torch.manual_seed(0)
    model = MerlotReserve(SMALL)
    optimizer = BF16AdamW(parameter_groups(model, 0.1), lr=1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return model, optimizer


def test_only_the_latest_checkpoints_are_kept(tmp_path, trained):
    for step in (5, 10, 15, 100000000 - 1):
        save_checkpoint(tmp_path, step, *trained, keep=2)
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [15, 99999999]


def test_a_half_written_checkpoint_does_not_count(tmp_path, trained):
    save_checkpoint(tmp_path, 1, *trained, keep=3)
    (tmp_path / "checkpoints" / "step_00000002.partial").mkdir()
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [1]


def test_a_run_without_checkpoints_has_none(tmp_path):
    assert list_checkpoints(tmp_path) == []


def test_moments_and_generator_come_back_bit_for_bit(tmp_path, trained):
    model, optimizer = trained
    checkpoint = save_checkpoint(tmp_path, 1, model, optimizer, keep=1)
    expected = torch.rand(4)
    again = BF16AdamW(parameter_groups(model, 0.1), lr=1e-3)
    load_trainer_state(checkpoint, again)
    assert torch.equal(torch.rand(4), expected)
    for before, after in zip(optimizer.state.values(), again.state.values(), strict=True):
        assert after["m"].dtype == after["v"].dtype == torch.bfloat16
        assert torch.equal(before["m"].view(torch.int16), after["m"].view(torch.int16))
        assert torch.equal(before["v"].view(torch.int16), after["v"].view(torch.int16))


def test_the_weights_in_a_checkpoint_are_a_pretrained_model(tmp_path, trained):
    model, optimizer = trained
    checkpoint = save_checkpoint(tmp_path, 1, model, optimizer, keep=1)
    loaded = MerlotReserve.from_pretrained(checkpoint.path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
