"""Held-out evaluation: can the model pick the true span, sound and frame among all candidates of all examples?"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
from reserve.model.objective import ContrastPairs, pretrain_pairs
from reserve.train.distributed import pick_device
from reserve.train.metrics import preparation_progress
from reserve.train.state import list_checkpoints

BATCH_SIZE = 8
GUESSES = 5
QUERIES_AT_ONCE = 1024
"""Queries that are scored against all candidates at a time: bounds the memory of large held-out sets."""
MASKINGS = 4
"""Maskings that a run is evaluated under."""
NORMAL_95 = 1.959964
"""Standard deviations either side of the mean that hold 95% of a normal distribution."""


@dataclass
class Ranking:
    """How the true candidate of each of n queries ranks among all candidates of a problem.

    `places` int [candidates, 2] says what each candidate is: its example in the data set, and the segment
    (imgs_to_audio), subsegment (text_to_audio) or text span (stuff_to_span) it is within that example. `truth` int [n]:
    the candidate that is right; `true_score` float32 [n]: its cosine with the prediction; `above` int [n]: candidates
    that score higher; `tied` int [n]: others that score the same. `guesses` int [n, 5]: the best candidates, best
    first; `guess_scores` float32 [n, 5]: their cosines. `further` are the rankings of other maskings of the same data
    set: all figures are over these queries and theirs, each ranked among the candidates of its own masking.
    """

    name: str
    places: np.ndarray
    truth: np.ndarray
    true_score: np.ndarray
    above: np.ndarray
    tied: np.ndarray
    guesses: np.ndarray
    guess_scores: np.ndarray
    further: list[Ranking] = field(default_factory=list)

    @property
    def candidates(self) -> int:
        return len(self.places)

    @property
    def queries(self) -> int:
        """Queries of all maskings."""
        return sum(len(masking.truth) for masking in self._maskings)

    @property
    def _maskings(self) -> list[Ranking]:
        return [self, *self.further]

    def _pooled(self, figure: Callable[[Ranking], np.ndarray]) -> np.ndarray:
        """A figure of every query, of all maskings."""
        return np.concatenate([figure(masking) for masking in self._maskings])

    def recall(self, k: int) -> float:
        """Fraction of queries whose true candidate is among the best k, ties broken at random on average.

        NaN where there is no query, as all other figures.
        """
        hits = self._pooled(lambda one: np.clip((k - one.above) / (one.tied + 1), 0, 1))
        return float(hits.mean()) if len(hits) else math.nan

    def interval(self, k: int) -> tuple[float, float]:
        """Wilson's 95% interval of recall(k).

        What several maskings ask for counts once: to ask again says little that is new.
        """
        n = len(np.unique(self._pooled(lambda one: one.places[one.truth]), axis=0))
        p, z = self.recall(k), NORMAL_95
        if n == 0:
            return math.nan, math.nan
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(centre - half, 0.0), min(centre + half, 1.0)

    def chance(self, k: int) -> float:
        """What recall(k) is for guesses drawn at random."""
        chances = self._pooled(lambda one: np.full(len(one.truth), min(k / max(one.candidates, 1), 1.0)))
        return float(chances.mean()) if len(chances) else math.nan

    def beats_chance(self, times: float) -> bool:
        """Whether recall@1 is at least `times` chance and its interval lies above chance."""
        return self.recall(1) >= times * self.chance(1) and self.interval(1)[0] > self.chance(1)

    @property
    def median_rank(self) -> float:
        """Median place of the true candidate, from 1, ties in the middle."""
        ranks = self._pooled(lambda one: one.above + one.tied / 2 + 1.0)
        return float(np.median(ranks)) if len(ranks) else math.nan

    def figures(self) -> dict[str, Any]:
        """What the table shows, by name, as JSON can hold it: None for what is not a number."""
        low, high = self.interval(1)
        figures = {
            "queries": self.queries,
            "candidates": self.candidates,
            "recall@1": self.recall(1),
            "recall@1 95% interval": math.nan if math.isnan(low) else [low, high],
            "chance@1": self.chance(1),
            "recall@5": self.recall(5),
            "chance@5": self.chance(5),
            "median rank": self.median_rank,
            "chance median rank": (self.candidates + 1) / 2,
        }
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value for name, value in figures.items()
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
                    str(ranking.queries),
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


def rank(name: str, x: torch.Tensor, y: torch.Tensor, truth: torch.Tensor, places: np.ndarray) -> Ranking:
    """Ranks candidate y[truth[i]] for prediction x[i] by cosine among all of y: [n, dim], [candidates, dim], int [n].

    A score that is not a number counts as the worst, so that a model that diverged is no better than chance.
    """
    x, y = unit_normalize(x), unit_normalize(y)
    parts = [
        _rank_rows(rows @ y.T, target)
        for rows, target in zip(x.split(QUERIES_AT_ONCE), truth.split(QUERIES_AT_ONCE), strict=True)
    ]
    columns = [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)]
    return Ranking(name, places, truth.cpu().numpy(), *columns)


def _rank_rows(scores: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """From scores [n, candidates] and the right candidates [n], the columns of Ranking from `true_score` on."""
    scores = scores.masked_fill(scores.isnan(), -math.inf)
    true_score = scores.gather(1, truth[:, None])
    best = scores.topk(min(GUESSES, scores.shape[1]), dim=1)
    above, tied = (scores > true_score).sum(1), (scores == true_score).sum(1) - 1
    return true_score[:, 0], above, tied, best.indices, best.values


@dataclass
class _Problem:
    """Predictions and candidates of one problem, a list entry a batch.

    `x` [queries, dim] with `wanted` int [queries], and `y` [candidates, dim] with `keys` int [candidates]: a key is
    example * `per_example` + place, with examples counted over the data set.
    """

    name: str
    per_example: int
    x: list[torch.Tensor] = field(default_factory=list)
    wanted: list[torch.Tensor] = field(default_factory=list)
    y: list[torch.Tensor] = field(default_factory=list)
    keys: list[torch.Tensor] = field(default_factory=list)

    def add(self, pairs: ContrastPairs, rows: torch.Tensor, y: torch.Tensor, extra: torch.Tensor, first: int) -> None:
        """Takes in a batch whose first example is `first`: joint rows of the predictions, and the places within the
        batch of `pairs.y` and `pairs.y_extra`. A target whose mask was cut off is only a candidate."""
        predicted = rows >= 0
        self.x.append(pairs.x[predicted].float())
        self.wanted.append(first * self.per_example + y[predicted])
        self.y.append(pairs.y.float())
        self.keys.append(first * self.per_example + y)
        if pairs.y_extra is not None:
            self.y.append(pairs.y_extra.float())
            self.keys.append(first * self.per_example + extra)

    def ranking(self) -> Ranking:
        """Queries and candidates in the order of their keys, however the batches had them."""
        wanted, x_order = torch.cat(self.wanted).sort()
        keys, y_order = torch.cat(self.keys).sort()
        places = np.stack(np.divmod(keys.cpu().numpy(), self.per_example), axis=1)
        x, y = torch.cat(self.x)[x_order], torch.cat(self.y)[y_order]
        return rank(self.name, x, y, torch.searchsorted(keys, wanted), places)


@torch.no_grad()
def evaluate(
    model: MerlotReserve,
    dataset: PretrainDataset,
    *,
    step: int = 0,
    maskings: int = 1,
    batch_size: int = BATCH_SIZE,
) -> Evaluation:
    """Ranks all held-out pairs: every frame, masked sound and text span of `dataset` against all of them.

    One masking asks for a quarter of the sounds; `maskings` of them, each drawn anew, ask for more. Candidates are in
    order of example, then segment, subsegment or span; `batch_size` changes nothing but speed and memory. The model is
    put in evaluation mode.
    """
    if maskings < 1:
        raise ValueError(f"maskings must be at least 1; got {maskings}")
    model.eval()
    rankings, *others = [_rank_masking(model, dataset, masking, batch_size) for masking in range(maskings)]
    for index, ranking in enumerate(rankings):
        ranking.further = [other[index] for other in others]
    return Evaluation(step, len(dataset), rankings)


def _rank_masking(model: MerlotReserve, dataset: PretrainDataset, masking: int, batch_size: int) -> list[Ranking]:
    """The rankings of the three problems under masking number `masking` of the data set."""
    data = dataset.data
    frames = _Problem("imgs_to_audio", data.num_segments)
    sounds = _Problem("text_to_audio", data.num_subsegments)
    spans = _Problem("stuff_to_span", data.num_text_spans)
    first = 0
    for batch in evaluation_batches(dataset, batch_size, masking):
        batch = batch.to(model.device)
        pairs, at = pretrain_pairs(model, batch), batch.targets
        every_frame = torch.arange(len(at.pool_rows), device=model.device)
        frames.add(pairs.imgs_to_audio, at.pool_rows, every_frame, every_frame[:0], first)
        sounds.add(pairs.text_to_audio, at.audio_rows, at.audio_index, at.audio_extra, first)
        spans.add(pairs.stuff_to_span, at.span_rows, at.span_index, at.span_index[:0], first)
        first += len(batch)
    return [problem.ranking() for problem in (frames, sounds, spans)]


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
        prepare_and_record(
            videos,
            folder,
            config.data,
            workers=workers,
            seed=config.train.seed,
            audio_track=config.train.audio_track,
            on_result=shown,
        )
    stores = recorded_stores(folder)
    random_text = settings.get("random_text")
    text = open_text_source(random_text, run) if random_text else TranscriptTextSource(stores)
    tokenizer = Tokenizer.load(settings.get("tokenizer"))
    dataset = PretrainDataset(stores, tokenizer, text, config.data, config.model, seed=seed, training=False)
    model = MerlotReserve.from_pretrained(checkpoints[-1].path).to(pick_device(config.train.device))
    evaluation = evaluate(model, dataset, step=checkpoints[-1].step, maskings=MASKINGS)
    (run / "evaluation.json").write_text(json.dumps(evaluation.to_json(), indent=1) + "\n", "utf-8")
    write_report(run, config, dataset, evaluation)
    return evaluation
