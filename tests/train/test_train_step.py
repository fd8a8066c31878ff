"""One step: micro-batches, gradients over ranks, clipping, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from reserve.batch.movable import Movable
from reserve.config import Config, OptimizerConfig, TrainConfig
from reserve.tasks.task import Loss
from reserve.train.distributed import Ranks
from reserve.train.parallel import Wrapping, parallelize
from reserve.train.step import train_step
from tests.helpers.ranks import run_ranks

CPU = Ranks(0, 1, torch.device("cpu"))


@dataclass
class Points(Movable):
    x: torch.Tensor
    y: torch.Tensor


def points(count: int) -> Points:
    generator = torch.Generator().manual_seed(0)
    return Points(torch.randn(count, 3, generator=generator), torch.randn(count, 1, generator=generator))


def parts(whole: Points, count: int) -> list[Points]:
    return [Points(x, y) for x, y in zip(whole.x.chunk(count), whole.y.chunk(count), strict=True)]


def squared_error(model: nn.Module, batch: Points) -> Loss:
    error = (model(batch.x) - batch.y).square().mean()
    return Loss(error, {"first": batch.x[0, 0]})


def config(max_grad_norm: float = 0.0, accumulate: int = 1) -> Config:
    return Config(
        optimizer=OptimizerConfig(max_grad_norm=max_grad_norm),
        train=TrainConfig(batch_size=12, accumulate=accumulate, precision="float32"),
    )


def step(micro_batches: list[Points], settings: Config) -> tuple[nn.Linear, dict[str, torch.Tensor]]:
    """A linear model after one step of gradient descent with a rate of 1."""
    torch.manual_seed(1)
    model = nn.Linear(3, 1)
    module = parallelize(model, squared_error, CPU)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    return model, train_step(module, optimizer, micro_batches, settings, CPU)


def test_micro_batches_give_the_step_of_the_whole_batch():
    whole = points(12)
    expected, reported = step([whole], config())
    for count in (2, 4):
        model, values = step(parts(whole, count), config(accumulate=count))
        torch.testing.assert_close(model.weight, expected.weight)
        torch.testing.assert_close(model.bias, expected.bias)
        torch.testing.assert_close(values["loss"], reported["loss"])
        torch.testing.assert_close(values["gradient_norm"], reported["gradient_norm"])


def test_metrics_are_means_over_the_micro_batches():
    pieces = parts(points(12), 3)
    _, values = step(pieces, config(accumulate=3))
    assert values.keys() == {"loss", "first", "gradient_norm"}
    assert float(values["first"]) == pytest.approx(sum(float(piece.x[0, 0]) for piece in pieces) / 3)


def test_the_norm_is_that_of_all_gradients_before_clipping():
    """With a rate of 1 the weights move by the gradients."""
    torch.manual_seed(1)
    start = nn.Linear(3, 1)
    moves = {}
    for limit in (0.0, 1e-2, 1e3):
        model, values = step([points(12)], config(max_grad_norm=limit))
        difference = [s - p for s, p in zip(start.parameters(), model.parameters(), strict=True)]
        moves[limit] = torch.cat([d.detach().flatten() for d in difference])
        if limit == 0:
            norm = moves[0.0].norm()
        torch.testing.assert_close(values["gradient_norm"], norm)
    torch.testing.assert_close(moves[1e3], moves[0.0])
    torch.testing.assert_close(moves[1e-2], moves[0.0] * (1e-2 / norm), rtol=1e-3, atol=1e-6)


def _rank(rank: int, address: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    try:
        _step_of_rank(rank, folder)
    finally:
        dist.destroy_process_group()


def _step_of_rank(rank: int, folder: str) -> None:
    """A function of its own, so that the wrapped model does not outlive the process group.

    Its reducer would then end gloo's threads while it holds the interpreter's lock, which one of them may wait for.
    """
    ranks = Ranks(rank, 2, torch.device("cpu"), dist.group.WORLD)
    torch.manual_seed(1)
    model = nn.Linear(3, 1)
    module = parallelize(model, squared_error, ranks, wrapping=Wrapping(uses_every_parameter=True))
    reduces = []
    module.register_forward_pre_hook(lambda wrapped, _: reduces.append(wrapped.require_backward_grad_sync))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    mine = parts(points(12), 6)[rank::2]
    values = train_step(module, optimizer, mine, config(accumulate=3), ranks)
    torch.save((model.state_dict(), values, reduces), f"{folder}/{rank}.pt")


def test_two_ranks_average_their_gradients_once_a_step(tmp_path: Path):
    run_ranks(_rank, f"file://{tmp_path}/rendezvous", str(tmp_path))
    expected, reported = step([points(12)], config())
    for rank in range(2):
        weights, values, reduces = torch.load(tmp_path / f"{rank}.pt")
        assert reduces == [False, False, True]
        torch.testing.assert_close(weights["weight"], expected.weight.detach())
        torch.testing.assert_close(values["gradient_norm"], reported["gradient_norm"])
