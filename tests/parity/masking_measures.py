"""Masking statistics against the reference's, over as many draws of its two recorded examples."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from reserve.batch.vocabulary import AUDIOSPAN, LTOVPOOL, MASK, MASKAUDIO, PAD
from reserve.config import DataConfig, ModelConfig
from reserve.tasks.pretrain.masking import draw_subsegment_starts, mask_text
from reserve.tasks.pretrain.text import MaskedText, MetadataPrefixes, UnmaskedText
from tests.parity.figures import Figure
from tests.parity.golden import Golden

DATA, MODEL = DataConfig(), ModelConfig()
RECORDS = ["dense", "sparse"]
STREAMS = ["text2audio", "audio2text", "audio_text_matching", "random_text"]
DRAWS = 400
# Ids of the prefixes in the released vocabulary.
PREFIXES = MetadataPrefixes(*(np.array(ids, np.int32) for ids in ([3388, 35], [2026, 35], [10884, 35])))


def example_text(record: dict[str, np.ndarray]) -> UnmaskedText:
    renamed = {
        "token_ids": "tok_ids",
        "token_start": "tok_start",
        "token_end": "tok_end",
        "token_segment": "tok_segment",
    }
    names = [field.name for field in dataclasses.fields(UnmaskedText)]
    return UnmaskedText(**{name: record[f"record/{renamed.get(name, name)}"] for name in names})


def statistics(masked: MaskedText) -> dict[str, float]:
    """One draw's row of words_*.stats.json."""
    result = {}
    for name in STREAMS:
        ids = getattr(masked, name).ids
        result[f"{name}/valid"] = (ids != PAD).sum(-1).mean()
        for key, token in (("mask", MASK), ("maskaudio", MASKAUDIO), ("audiospan", AUDIOSPAN), ("ltovpool", LTOVPOOL)):
            result[f"{name}/{key}"] = (ids == token).sum()
    for source, spans in zip(("t2a", "a2t", "rt"), np.split(masked.text_spans, [12, 24]), strict=True):
        lengths = (spans != PAD).sum(-1)
        result[f"span_len_mean/{source}"] = lengths.mean()
        result[f"span_empty/{source}"] = (lengths == 0).mean()
        result |= {f"span_len_hist/{source}/{n:02d}": (lengths == n).mean() for n in range(1, 16)}
    return result


def masking(golden: Golden) -> list[Figure]:
    """Every mean in the reference's statistics, for each recorded example."""
    return [figure for name in RECORDS for figure in _of_record(golden.folder, name)]


def _of_record(folder: Path, name: str) -> list[Figure]:
    with np.load(folder / f"words_{name}.npz") as archive:
        text = example_text(dict(archive))
    stats = json.loads((folder / f"words_{name}.stats.json").read_text())
    if stats.pop("_draws") != DRAWS:
        raise ValueError(f"words_{name}.stats.json is not of {DRAWS} draws")
    rng = np.random.default_rng(0)
    draws = [
        statistics(mask_text(text, draw_subsegment_starts(rng, DATA), PREFIXES, DATA, MODEL, rng)) for _ in range(DRAWS)
    ]
    figures = [Figure(f"{name}: statistics on one side only", "count", float(len(set(draws[0]) ^ set(stats))), 0)]
    for statistic, theirs in stats.items():
        ours = np.array([draw[statistic] for draw in draws])
        difference = abs(float(ours.mean()) - theirs["mean"])
        # Standard error of the difference of two means.
        error = float(np.sqrt((ours.std() ** 2 + theirs["std"] ** 2) / DRAWS))
        if error == 0:
            figures.append(Figure(f"{name}: {statistic}", "difference of what never varies", difference, 1e-9))
        else:
            figures.append(Figure(f"{name}: {statistic}", "standard errors", difference / error, 4))
    return figures
