"""Kinetics-600's predictions: top-1 and top-5 accuracy, and a file with the best classes of each clip (SPEC 10.9)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reserve.fs import write_text_atomic
from reserve.tasks.scores import Score, mean_score

TOP = 5


@dataclass(frozen=True, slots=True)
class ClipPrediction:
    """A clip's best classes, best first, with their probabilities; `label` is the right one, -1 if unknown."""

    name: str
    classes: tuple[int, ...]
    probabilities: tuple[float, ...]
    label: int


def best_classes(name: str, probabilities: np.ndarray, label: int) -> ClipPrediction:
    """The prediction of `probabilities` [classes]; of equal ones the first class counts."""
    order = np.argsort(-probabilities, kind="stable")[:TOP]
    return ClipPrediction(name, tuple(order.tolist()), tuple(probabilities[order].tolist()), label)


def kinetics_scores(predictions: Sequence[ClipPrediction], classes: int) -> tuple[Score, ...]:
    """Top-1 and top-5 accuracy over the clips with a known class. Clips of one source video are resampled together."""
    known = [p for p in predictions if p.label >= 0]
    groups = np.unique([_source_video(p.name) for p in known], return_inverse=True)[1] if known else None
    scores = []
    for top in (1, TOP):
        hits = np.array([p.label in p.classes[:top] for p in known])
        scores.append(mean_score(f"top-{top}", hits, chance=min(top / classes, 1.0), groups=groups))
    return tuple(scores)


def _source_video(name: str) -> str:
    """The YouTube id, which may contain underscores itself."""
    return name.rsplit("_", 2)[0]


def write_predictions(path: Path, predictions: Sequence[ClipPrediction], labels: Sequence[str]) -> None:
    """A JSON map from each clip's name to its best classes: a list of `label` and `score`, best first."""
    best = {
        p.name: [
            {"label": labels[number], "score": score} for number, score in zip(p.classes, p.probabilities, strict=True)
        ]
        for p in predictions
    }
    write_text_atomic(path, json.dumps(best, ensure_ascii=False) + "\n")
