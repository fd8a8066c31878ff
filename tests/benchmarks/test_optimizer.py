"""Optimisers are compared by their first update."""

from __future__ import annotations

import pytest
import torch

from benchmarks.interleaved import OURS, Missing, largest_relative_difference
from benchmarks.optimizer import GRADIENT, OPTIMIZERS, TOLERANCE, first_update


def update_by(make) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(n, 64, generator=generator) * 0.02) for n in (300, 7)]
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator) * GRADIENT
    return first_update(make(parameters), parameters)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_first_updates_agree(name):
    try:
        update = update_by(OPTIMIZERS[name])
    except Missing as reason:
        pytest.skip(str(reason))
    assert largest_relative_difference(update, update_by(OPTIMIZERS[OURS])) < TOLERANCE


def test_another_rule_is_found():
    other = update_by(lambda parameters: torch.optim.SGD(parameters, 1e-4))
    assert largest_relative_difference(other, update_by(OPTIMIZERS[OURS])) > 2 * TOLERANCE
