"""Held-out evaluation: can the model pick the true span, sound and frame among all candidates of all examples?"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.pretrain.dataset import PretrainDataset, evaluation_batches
from reserve.tasks.pretrain.objective import ContrastPairs, pretrain_pairs
from reserve.tasks.pretrain.ranking import Evaluation, Ranking, rank

BATCH_SIZE = 8
MASKINGS = 4
"""Number of maskings in the evaluation of a run."""


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
