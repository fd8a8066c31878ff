"""Held-out evaluation: can the model pick the true span, sound and frame among all candidates of all examples?"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.pretrain.dataset import PretrainDataset, evaluation_batches
from reserve.tasks.pretrain.objective import ContrastPairs, pretrain_pairs
from reserve.tasks.pretrain.ranking import Ranking, rank
from reserve.tasks.pretrain.shown_segments import shown_segments

BATCH_SIZE = 8
MASKINGS = 4
"""Number of maskings in the evaluation of a run."""


@dataclass
class Evaluation:
    """The rankings of the three problems on a data set, by a model trained for `step` steps."""

    step: int
    dataset: PretrainDataset
    rankings: list[Ranking]

    @property
    def examples(self) -> int:
        return len(self.dataset)

    def figures(self) -> dict[str, float]:
        """Recall, its chance and the median rank of each problem, by PROBLEM_FIGURE."""
        figures = {}
        for ranking in self.rankings:
            figures[f"{ranking.name}_recall_at_1"] = ranking.recall(1)
            figures[f"{ranking.name}_chance_at_1"] = ranking.chance(1)
            figures[f"{ranking.name}_recall_at_5"] = ranking.recall(5)
            figures[f"{ranking.name}_median_rank"] = ranking.median_rank
        return figures

    def to_json(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "examples": self.examples,
            "rankings": {ranking.name: ranking.figures() for ranking in self.rankings},
        }

    def details(self) -> dict[str, Any]:
        """Some segments with what the model guessed; numbers that are not finite as null."""
        return _finite(asdict(shown_segments(self.step, self.dataset, self.rankings)))

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


def _finite(value: Any) -> Any:
    """A JSON value with None in place of numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass
class _Problem:
    """Predictions and candidates of one problem, one list entry per batch.

    `x` [queries, dim] with `target_keys` int [queries], and `y` [candidates, dim] with `keys` int [candidates]. A key
    is example * `per_example` + place, with examples counted over the data set.
    """

    name: str
    per_example: int
    x: list[torch.Tensor] = field(default_factory=list)
    target_keys: list[torch.Tensor] = field(default_factory=list)
    y: list[torch.Tensor] = field(default_factory=list)
    keys: list[torch.Tensor] = field(default_factory=list)

    def add(self, pairs: ContrastPairs, rows: torch.Tensor, y: torch.Tensor, extra: torch.Tensor, first: int) -> None:
        """Adds a batch whose first example is `first`.

        `rows` are the joint rows of the predictions, `y` and `extra` the places of `pairs.y` and `pairs.y_extra` in the
        batch. A target whose mask was truncated is only a candidate.
        """
        predicted = rows >= 0
        self.x.append(pairs.x[predicted].float())
        self.target_keys.append(first * self.per_example + y[predicted])
        self.y.append(pairs.y.float())
        self.keys.append(first * self.per_example + y)
        if pairs.y_extra is not None:
            self.y.append(pairs.y_extra.float())
            self.keys.append(first * self.per_example + extra)

    def ranking(self) -> Ranking:
        """The ranking, with queries and candidates sorted by key, so that it does not depend on the batches."""
        target_keys, x_order = torch.cat(self.target_keys).sort()
        keys, y_order = torch.cat(self.keys).sort()
        places = np.stack(np.divmod(keys.cpu().numpy(), self.per_example), axis=1)
        x, y = torch.cat(self.x)[x_order], torch.cat(self.y)[y_order]
        return rank(self.name, x, y, torch.searchsorted(keys, target_keys), places)


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

    One masking queries a quarter of the sounds; `maskings` independent ones query more. Candidates are sorted by
    example, then by segment, subsegment or span. `batch_size` affects only speed and memory. The model is put in
    evaluation mode.
    """
    if maskings < 1:
        raise ValueError(f"maskings must be at least 1; got {maskings}")
    model.eval()
    rankings, *others = [_rank_masking(model, dataset, masking, batch_size) for masking in range(maskings)]
    for index, ranking in enumerate(rankings):
        ranking.further = [other[index] for other in others]
    return Evaluation(step, dataset, rankings)


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
