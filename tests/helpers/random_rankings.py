"""Evaluations of a small data set that need no model."""

from __future__ import annotations

import numpy as np
import torch

from reserve.batch.vocabulary import MASKAUDIO, PAD
from reserve.tasks.pretrain.dataset import PretrainDataset
from reserve.tasks.pretrain.evaluation import Evaluation
from reserve.tasks.pretrain.ranking import rank
from tests.helpers.small_stores import DATA


def evaluate_at_random(dataset: PretrainDataset, *, right: bool = False, value: float | None = None) -> Evaluation:
    """An evaluation of `dataset` with random predictions, correct ones (`right`), or all numbers equal to `value`."""
    items = [dataset[0, example] for example in range(len(dataset))]
    masked = [np.unique(text.audio_ptr[text.ids == MASKAUDIO]) for text in (item.text.text2audio for item in items)]
    spoken = [np.flatnonzero((item.text.text_spans != PAD).any(1)) for item in items]
    every = {
        "imgs_to_audio": (DATA.num_segments, [np.arange(DATA.num_segments)] * len(items)),
        "text_to_audio": (DATA.num_subsegments, masked),
        "stuff_to_span": (DATA.num_text_spans, spoken),
    }
    generator = torch.Generator().manual_seed(0)
    rankings = []
    for name, (per_example, queried) in every.items():
        queries = torch.tensor(
            [example * per_example + p for example, places in enumerate(queried) for p in places.tolist()]
        )
        keys = queries if name == "stuff_to_span" else torch.arange(per_example * len(items))
        y = torch.randn(len(keys), 16, generator=generator)
        truth = torch.searchsorted(keys, queries)
        x = y[truth] if right else torch.randn(len(truth), 16, generator=generator)
        if value is not None:
            x = torch.full_like(x, value)
        rankings.append(rank(name, x, y, truth, np.stack(np.divmod(keys.numpy(), per_example), 1)))
    return Evaluation(250, dataset, rankings)
