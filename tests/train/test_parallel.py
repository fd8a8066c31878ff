"""Wrapping a model: which mode runs where, and that every parameter is used inside."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reserve.train.distributed import Ranks
from reserve.train.parallel import MODES, parallelize

ALONE = Ranks(0, 1, torch.device("cpu"))
ONE_OF_TWO = Ranks(0, 2, torch.device("cpu"))


def squared(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return (model(batch) ** 2).sum()


def test_on_one_rank_it_is_the_loss_of_the_model():
    model, batch = nn.Linear(3, 2), torch.randn(4, 3)
    module = parallelize(model, squared, ALONE)
    assert torch.equal(module(batch), squared(model, batch))
    assert {id(p) for p in module.parameters()} == {id(p) for p in model.parameters()}


def test_unsynchronised_models_are_refused():
    with pytest.raises(ValueError, match="parallel mode 'none' would train 2 models apart; use 'ddp'"):
        parallelize(nn.Linear(3, 2), squared, ONE_OF_TWO, mode="none")


def test_an_unknown_mode_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="must be one of 'none', 'ddp'; got 'fsdp9'"):
        parallelize(nn.Linear(3, 2), squared, ALONE, mode="fsdp9")


@pytest.mark.parametrize(("ranks", "mode"), [(ALONE, "none"), (ONE_OF_TWO, "ddp")])
def test_the_number_of_ranks_chooses_the_mode(ranks, mode, monkeypatch):
    monkeypatch.setitem(MODES, mode, lambda module, ranks, uses_every_parameter: nn.Identity())
    assert isinstance(parallelize(nn.Linear(3, 2), squared, ranks), nn.Identity)


def test_the_loss_runs_inside_what_is_wrapped(monkeypatch):
    """A temperature or a head that the loss uses must be used where a wrapper has gathered it."""
    inside = []

    class Wrapper(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, batch):
            inside.append("in")
            out = self.module(batch)
            inside.append("out")
            return out

    monkeypatch.setitem(MODES, "ddp", lambda module, ranks, uses_every_parameter: Wrapper(module))
    module = parallelize(nn.Linear(3, 2), lambda model, batch: inside.append("loss"), ONE_OF_TWO)
    module(torch.zeros(1, 3))
    assert inside == ["in", "loss", "out"]
