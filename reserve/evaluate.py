"""Held-out evaluation: can the model pick the true span, sound and frame among all candidates of all examples?"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from reserve.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from reserve.data.dataset import PretrainDataset
from reserve.data.loader import evaluation_batches
from reserve.data.record import prepare_and_record, recorded_stores
from reserve.data.text_source import TranscriptTextSource, open_text_source
from reserve.data.tokenizer import Tokenizer
from reserve.model.merlot_reserve import MerlotReserve, unit_normalize
from reserve.model.objective import PretrainPairs, pretrain_pairs
from reserve.train.distributed import pick_device
from reserve.train.metrics import preparation_progress
from reserve.train.state import list_checkpoints

BATCH_SIZE = 8
GUESSES = 5
NORMAL_95 = 1.959964
"""Standard deviations either side of the mean that hold 95% of a normal distribution."""


@dataclass
class Ranking:
    """How the true candidate of each of n queries ranks among `candidates`.

    `above` int [n]: candidates that score higher than the true one; `tied` int [n]: others that score the same;
    `guesses` int [n, 5]: the best candidates, best first; `truth` int [n]: the true one.
    """

    name: str
    candidates: int
    above: np.ndarray
    tied: np.ndarray
    guesses: np.ndarray
    truth: np.ndarray

    def recall(self, k: int) -> float:
        """Fraction of queries whose true candidate is among the best k, ties broken at random on average."""
        return float(np.clip((k - self.above) / (self.tied + 1), 0, 1).mean())

    def interval(self, k: int) -> tuple[float, float]:
        """Wilson's 95% interval of recall(k)."""
        n, p, z = len(self.above), self.recall(k), NORMAL_95
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(centre - half, 0.0), min(centre + half, 1.0)

    def chance(self, k: int) -> float:
        """What recall(k) is for guesses drawn at random."""
        return min(k / self.candidates, 1.0)

    def beats_chance(self, times: float) -> bool:
        """Whether recall@1 is at least `times` chance and its interval lies above chance."""
        return self.recall(1) >= times * self.chance(1) and self.interval(1)[0] > self.chance(1)

    @property
    def median_rank(self) -> float:
        """Median place of the true candidate, from 1, ties in the middle."""
        return float(np.median(self.above + self.tied / 2)) + 1.0

    def figures(self) -> dict[str, Any]:
        """What the table shows, by name."""
        low, high = self.interval(1)
        return {
            "queries": len(self.above),
            "candidates": self.candidates,
            "recall@1": self.recall(1),
            "recall@1 95% interval": [low, high],
            "chance@1": self.chance(1),
            "recall@5": self.recall(5),
            "chance@5": self.chance(5),
            "median rank": self.median_rank,
            "chance median rank": (self.candidates + 1) / 2,
        }


@dataclass
class Evaluation:
    """Rankings of the three problems on a data set, by checkpoint step."""

    step: int
    examples: int
    rankings: list[Ranking]

    def to_json(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "examples": self.examples,
            "rankings": {ranking.name: ranking.figures() for ranking in self.rankings},
        }

    def __str__(self) -> str:
        header = (
            "",
            "queries",
            "candidates",
            "recall@1",
            "95% interval",
            "chance",
            "recall@5",
            "chance",
            "median rank",
        )
        rows = [header]
        for ranking in self.rankings:
            low, high = ranking.interval(1)
            rows.append(
                (
                    ranking.name,
                    str(len(ranking.above)),
                    str(ranking.candidates),
                    f"{ranking.recall(1):.2%}",
                    f"{low:.2%} to {high:.2%}",
                    f"{ranking.chance(1):.2%}",
                    f"{ranking.recall(5):.2%}",
                    f"{ranking.chance(5):.2%}",
                    f"{ranking.median_rank:g} of {ranking.candidates}",
                )
            )
        widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def rank(name: str, x: torch.Tensor, y: torch.Tensor, y_extra: torch.Tensor) -> Ranking:
    """Ranks y[i] for x[i] by cosine among y and y_extra: [n, dim], [n, dim], [m, dim]."""
    candidates = torch.cat((unit_normalize(y), unit_normalize(y_extra)))
    scores = unit_normalize(x) @ candidates.T
    truth = torch.arange(len(x), device=x.device)
    true_score = scores.gather(1, truth[:, None])
    return Ranking(
        name,
        len(candidates),
        (scores > true_score).sum(1).cpu().numpy(),
        ((scores == true_score).sum(1) - 1).cpu().numpy(),
        scores.topk(min(GUESSES, len(candidates)), dim=1).indices.cpu().numpy(),
        truth.cpu().numpy(),
    )


@torch.no_grad()
def evaluate(model: MerlotReserve, dataset: PretrainDataset, *, step: int = 0) -> Evaluation:
    """Ranks all held-out pairs: every frame, masked sound and text span of `dataset` against all of them.

    Candidates are in order of example, then segment, subsegment (masked ones of all examples first, the others after)
    or span. The model is put in evaluation mode.
    """
    model.eval()
    collected: list[PretrainPairs] = []
    for batch in evaluation_batches(dataset, BATCH_SIZE):
        pairs = pretrain_pairs(model, batch.to(model.device))
        collected.append(pairs)
    rankings = []
    for name in PretrainPairs._fields:
        problems = [getattr(pairs, name) for pairs in collected]
        x, y = (torch.cat([getattr(problem, side).float() for problem in problems]) for side in ("x", "y"))
        extras = [problem.y_extra.float() for problem in problems if problem.y_extra is not None]
        rankings.append(rank(name, x, y, torch.cat(extras) if extras else y[:0]))
    return Evaluation(step, len(dataset), rankings)


def read_run_config(run: Path) -> tuple[Config, dict[str, Any]]:
    """A run's configuration and its other settings, from its config.yaml."""
    path = run / "config.yaml"
    if not path.is_file():
        raise ValueError(f"{run} is not a run's folder: it has no config.yaml")
    settings = yaml.safe_load(path.read_text("utf-8"))
    sections = {"data": DataConfig, "model": ModelConfig, "optimizer": OptimizerConfig, "train": TrainConfig}
    values = {
        name: section(**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.pop(name).items()})
        for name, section in sections.items()
    }
    return Config(**values), settings


def evaluate_run(run: Path, videos: Sequence[str], *, workers: int = 2, seed: int = 0) -> Evaluation:
    """Evaluates a run's last checkpoint on held-out videos; writes evaluation.json and report.html into the run.

    `seed` decides the masking. Raises ValueError where `run` has no checkpoint, BadInput or NothingPrepared where the
    videos cannot be used.
    """
    from reserve.report import write_report

    config, settings = read_run_config(run)
    checkpoints = list_checkpoints(run)
    if not checkpoints:
        raise ValueError(f"{run} has no checkpoint yet")
    folder = run / "heldout"
    with preparation_progress() as shown:
        prepare_and_record(videos, folder, config.data, workers=workers, seed=config.train.seed, on_result=shown)
    stores = recorded_stores(folder)
    random_text = settings.get("random_text")
    text = open_text_source(random_text, run) if random_text else TranscriptTextSource(stores)
    tokenizer = Tokenizer.load(settings.get("tokenizer"))
    dataset = PretrainDataset(stores, tokenizer, text, config.data, config.model, seed=seed, training=False)
    model = MerlotReserve.from_pretrained(checkpoints[-1].path).to(pick_device(config.train.device))
    evaluation = evaluate(model, dataset, step=checkpoints[-1].step)
    (run / "evaluation.json").write_text(json.dumps(evaluation.to_json(), indent=1) + "\n", "utf-8")
    write_report(run, config, dataset, evaluation)
    return evaluation
