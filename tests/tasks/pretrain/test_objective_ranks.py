"""The objective on two ranks (gloo), each with its own pairs against the candidates of both (SPEC 8)."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist

from reserve.tasks.pretrain.objective import ContrastPairs, PretrainPairs, pretrain_loss
from tests.helpers.ranks import run_ranks

LOG_SCALES = [1.3, 2.1, 5.0]
# Pairs per rank of the three problems, and extra candidates of the second.
COUNTS = (4, 3, 6, 9)
SOURCES = [[0, 0, 1, 2, 2, -1], [2, 1, 1, 1, 0, 2]]


def pairs_of(rank: int) -> PretrainPairs:
    generator = torch.Generator().manual_seed(rank)
    frames, sounds, spans, extra = COUNTS

    def vectors(n: int) -> torch.Tensor:
        return torch.randn(n, 64, generator=generator, dtype=torch.float64).requires_grad_()

    return PretrainPairs(
        imgs_to_audio=ContrastPairs(vectors(frames), vectors(frames)),
        text_to_audio=ContrastPairs(vectors(sounds), vectors(sounds), vectors(extra)),
        stuff_to_span=ContrastPairs(vectors(spans), vectors(spans)),
    )


def tensors_of(pairs: PretrainPairs) -> list[torch.Tensor]:
    return [vectors for problem in pairs for vectors in problem if vectors is not None]


def run_rank(rank: int, address: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    try:
        pairs, scales = pairs_of(rank), torch.tensor(LOG_SCALES, dtype=torch.float64, requires_grad=True)
        loss = pretrain_loss(pairs, scales, torch.tensor(SOURCES[rank]), group=dist.group.WORLD)
        gradients = torch.autograd.grad(loss.total, [*tensors_of(pairs), scales])
        torch.save((loss.metrics(), gradients), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def restated(pairs: list[PretrainPairs], scales: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    """The losses of each rank, and the scales."""
    losses: list[dict[str, torch.Tensor]] = [{}, {}]
    for number, name in enumerate(PretrainPairs._fields):
        factor = torch.exp(scales[number].clamp(max=torch.tensor(100.0).double().log()) / 2)

        def unit(v: torch.Tensor, factor: torch.Tensor = factor) -> torch.Tensor:
            return v / torch.sqrt((v**2).sum(-1, keepdim=True) + 1e-5) * factor

        problems = [getattr(one, name) for one in pairs]
        every_x = torch.cat([unit(p.x) for p in problems])
        every_y = torch.cat([unit(v) for p in problems for v in (p.y, p.y_extra) if v is not None])
        for rank, problem in enumerate(problems):
            x, y = unit(problem.x), unit(problem.y)
            positive = (x * y).sum(-1)
            both = (x @ every_y.T).logsumexp(-1) - positive + (y @ every_x.T).logsumexp(-1) - positive
            losses[rank][name] = both.mean() / 2
            if name == "stuff_to_span":
                for source, stream in enumerate(("text2audio", "audio2text", "random_text")):
                    mine = torch.tensor(SOURCES[rank]) == source
                    losses[rank][f"span_{stream}"] = both[mine].sum() / 2 / (mine.double().sum() + 1e-5)
    named = {f"scale_{name}": scale.exp() for name, scale in zip(PretrainPairs._fields, scales, strict=True)}
    return [{"loss": sum(rank[name] for name in PretrainPairs._fields)} | rank | named for rank in losses]


def test_losses_and_gradients_of_two_ranks(tmp_path: Path) -> None:
    run_ranks(run_rank, f"file://{tmp_path}/rendezvous", str(tmp_path))
    metrics, gradients = zip(*(torch.load(tmp_path / f"{rank}.pt") for rank in range(2)), strict=True)
    pairs, scales = [pairs_of(0), pairs_of(1)], torch.tensor(LOG_SCALES, dtype=torch.float64, requires_grad=True)
    truth = restated(pairs, scales)
    for ours, expected in zip(metrics, truth, strict=True):
        assert ours.keys() == expected.keys()
        for name, value in ours.items():
            torch.testing.assert_close(value, expected[name].detach(), rtol=1e-9, atol=1e-9)

    total = truth[0]["loss"] + truth[1]["loss"]
    *of_vectors, of_scales = torch.autograd.grad(total, [*tensors_of(pairs[0]), *tensors_of(pairs[1]), scales])
    for ours, expected in zip([*gradients[0][:-1], *gradients[1][:-1]], of_vectors, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)
    # Each rank has part of the gradient of a shared parameter.
    torch.testing.assert_close(gradients[0][-1] + gradients[1][-1], of_scales, rtol=1e-9, atol=1e-12)
