"""The optimiser of a run holds every trainable parameter."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reserve.config import OptimizerConfig
from reserve.train.optimizer import make_optimizer


def groups(*parameters):
    return [{"params": list(parameters)}]


def test_a_trainable_parameter_in_no_group_is_named():
    model = nn.ModuleDict({"trunk": nn.Linear(2, 2), "classifier": nn.Linear(2, 3)})
    with pytest.raises(
        ValueError, match=r"2 trainable parameters are in no group .*: classifier.weight, classifier.bias"
    ):
        make_optimizer(model, groups(*model["trunk"].parameters()), OptimizerConfig())


def test_a_frozen_parameter_needs_no_group():
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    optimizer = make_optimizer(model, groups(model.weight), OptimizerConfig())
    assert [p is model.weight for group in optimizer.param_groups for p in group["params"]] == [True]


def test_settings_are_those_of_the_configuration():
    model = nn.Linear(2, 2)
    config = OptimizerConfig(learning_rate=0.5, beta_1=0.8, beta_2=0.7, eps=1e-3, weight_decay_rate=0.2)
    optimizer = make_optimizer(model, groups(*model.parameters()), config)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (0.5, (0.8, 0.7), 1e-3, 0.2)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert optimizer.state[model.weight]["m"].dtype == torch.bfloat16
