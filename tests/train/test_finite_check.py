"""Steps that are not finite are counted, those in a row too, whichever rank has them."""

from __future__ import annotations

import math

import pytest
import torch

from reserve.train.distributed import Ranks
from reserve.train.finite_check import FiniteCheck, Found

ALONE = Ranks(0, 1, torch.device("cpu"))
GOOD, NAN, INF = torch.tensor(1.0), torch.tensor(math.nan), torch.tensor(math.inf)


def counted(*steps: tuple[torch.Tensor, torch.Tensor]) -> FiniteCheck:
    check = FiniteCheck(ALONE)
    for number, (loss, norm) in enumerate(steps, 1):
        check.add(number, loss, norm)
    return check


def test_finite_steps_are_not_counted():
    assert counted((GOOD, GOOD), (GOOD, GOOD)).look(2) == Found(0, 0, 0, 0)


@pytest.mark.parametrize("bad", [(NAN, GOOD), (GOOD, NAN), (GOOD, INF), (-INF, GOOD), (NAN, NAN)])
def test_a_loss_or_a_norm_that_is_not_finite_counts(bad):
    assert counted((GOOD, GOOD), bad, (GOOD, GOOD)).look(3) == Found(1, 2, 0, 0)


def test_steps_in_a_row_are_counted_across_looks():
    check = counted((NAN, GOOD), (GOOD, GOOD), (NAN, GOOD))
    assert check.look(3) == Found(2, 1, 1, 3)
    check.add(4, NAN, GOOD)
    assert check.look(4) == Found(1, 4, 2, 3)
    check.add(5, GOOD, GOOD)
    assert check.look(5) == Found(0, 0, 0, 0)


def test_the_ranks_find_what_one_of_them_finds(monkeypatch):
    others = [3.0, 4.0, -7.0]
    monkeypatch.setattr(Ranks, "max", lambda self, mine: list(map(max, mine, others)))
    assert counted((GOOD, GOOD)).look(10) == Found(4, 7, 3, 8)
