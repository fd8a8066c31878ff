"""The table of ways to share a step: what it covers, what it compares with, and what it finds."""

from __future__ import annotations

import pytest
import torch

from benchmarks.scaling.runs import LOSS_TOLERANCE, MOVES, Outcome, Run, _check, chance_loss, compare, grid
from benchmarks.scaling.train import configuration


def outcome(losses: list[float], weight: float, moment: float = 1.0) -> Outcome:
    def state(weight: float, moment: float) -> dict[str, torch.Tensor]:
        return {"model/w": torch.tensor([weight, 0.0]), "optimizer/w.m": torch.tensor([moment])}

    return Outcome(losses, state(0.0, 0.0), state(weight, moment))


def test_the_grid_has_every_way_and_its_reference():
    rows = grid()
    assert len(rows) == len(set(rows))
    assert {row.reference for row in rows} <= set(rows)
    for ranks, parallel in ((1, "auto"), (2, "ddp"), (2, "fsdp"), (4, "ddp"), (4, "fsdp")):
        for accumulate in (1, 4):
            for grad_cache in (False, True):
                assert Run(ranks, parallel, accumulate, grad_cache) in rows
    assert {row.parallel for row in rows if row.compile == "layers"} == {"ddp", "fsdp"}
    assert {run for move in MOVES for run in move} - set(rows) == set()
    for row in rows:
        configuration(row.settings)


def test_a_reference_is_one_process_with_the_same_candidates():
    assert Run(4, "fsdp", 4, True).reference == Run()
    assert Run(4, "ddp", 4).reference == Run(accumulate=4)
    assert Run(4, "fsdp", fsdp_ranks=2, precision="bfloat16").reference == Run(4, "ddp", precision="bfloat16")


def test_distances_are_relative_to_the_way_that_was_gone():
    found = compare(outcome([3.0, 2.5], 2.2, 1.0), outcome([3.0, 2.0], 2.0, 2.0))
    assert found["loss"] == 0.5
    assert found["weights"] == pytest.approx(0.1)
    assert found["moments"] == pytest.approx(0.5)
    assert not found["identical"]


def test_identical_means_losses_and_checkpoints():
    assert compare(outcome([3.0], 2.0), outcome([3.0], 2.0))["identical"]
    assert not compare(outcome([3.0], 2.0), outcome([3.0], 2.0, 1.5))["identical"]


def test_a_checkpoint_that_lacks_a_tensor_is_found():
    ours = outcome([3.0], 2.0)
    del ours.end["optimizer/w.m"]
    with pytest.raises(RuntimeError, match="hold different tensors"):
        compare(ours, outcome([3.0], 2.0))


@pytest.mark.parametrize("loss", [2 * LOSS_TOLERANCE["float32"], float("nan")])
def test_another_curve_is_an_error(loss):
    with pytest.raises(RuntimeError, match="does not compute what one process computes"):
        _check(Run(), "float32", {"loss": loss, "weights": 0.0})


def test_chance_is_the_logarithm_of_the_candidates():
    """16 examples of 4 frames, 3 masked of 12 sounds, and 10 spans."""
    expected = torch.tensor([64.0, 64.0, 48.0, 192.0, 160.0, 160.0]).log().sum() / 2
    assert chance_loss(16) == pytest.approx(float(expected), rel=1e-6)
