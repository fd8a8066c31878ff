"""Checkpoints of a model on a GPU: copied to host memory, written beside the training."""

from __future__ import annotations

import pytest
import torch

from reserve.config import TrainConfig
from reserve.train.distributed import Ranks
from reserve.train.saving import CheckpointWriter
from reserve.train.state import Progress, restore_checkpoint
from tests.helpers.trained_models import new_model, new_optimizer, same_bits, whole_state

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

GPU = Ranks(0, 1, torch.device("cuda"))


def _train_a_step(model, optimizer) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()


@pytest.mark.parametrize("asynchronous", [True, False])
def test_the_state_of_the_save_comes_back_on_either_device(tmp_path, asynchronous):
    model = new_model().to(GPU.device)
    optimizer = new_optimizer(model)
    _train_a_step(model, optimizer)
    before = {name: value.cpu() for name, value in whole_state(model, optimizer).items()}
    config = TrainConfig(async_checkpoints=asynchronous)
    with CheckpointWriter(tmp_path, model, optimizer, GPU, config) as checkpoints:
        checkpoints.save(Progress(1))
        _train_a_step(model, optimizer)
    for device in ("cpu", "cuda"):
        again = new_model(seed=9).to(device)
        moments = new_optimizer(again)
        assert restore_checkpoint(tmp_path, again, moments, Ranks(0, 1, torch.device(device))).step == 1
        assert same_bits({name: value.cpu() for name, value in whole_state(again, moments).items()}, before)
