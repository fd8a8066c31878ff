"""VCR's predictions: probabilities of each question, the file of the leaderboard, and the task's scores (SPEC 10.7)."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reserve.fs import replacing
from reserve.tasks.scores import Score, mean_score
from reserve.tasks.vcr.annotations import CHOICES

CHANCE = 1 / CHOICES


@dataclass(frozen=True)
class VcrPrediction:
    """One question: `answers` [4], and `rationales` [4] given the right answer, or [4, 4] given each. Probabilities.

    Labels are None if unknown. `image` groups questions about one picture.
    """

    annot_id: str
    image: str
    answers: np.ndarray
    rationales: np.ndarray
    answer_label: int | None
    rationale_label: int | None


def vcr_scores(predictions: Sequence[VcrPrediction]) -> tuple[Score, ...]:
    """Accuracy of the answers, of the rationales given the right answer, and of both together.

    Questions about one picture are resampled together.
    """
    known = [p for p in predictions if p.answer_label is not None and p.rationale_label is not None]
    answers = np.array([p.answers.argmax() == p.answer_label for p in known])
    rationales = np.array([p.rationales.argmax() == p.rationale_label for p in known])
    groups = np.unique([p.image for p in known], return_inverse=True)[1] if known else None
    return (
        mean_score("Q->A", answers, chance=CHANCE, groups=groups),
        mean_score("QA->R", rationales, chance=CHANCE, groups=groups),
        mean_score("Q->AR", answers & rationales, chance=CHANCE**2, groups=groups),
    )


def write_submission(path: Path, predictions: Sequence[VcrPrediction]) -> None:
    """The leaderboard's CSV: probabilities of the answers, and of the rationales given each answer.

    Rows are sorted by the number in annot_id. The rationales must be [4, 4].
    """
    header = [f"answer_{choice}" for choice in range(CHOICES)]
    header += [f"rationale_conditioned_on_a{a}_{r}" for a in range(CHOICES) for r in range(CHOICES)]
    ordered = sorted(predictions, key=lambda p: _number(p.annot_id))
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["annot_id", *header])
        for prediction in ordered:
            values = (*prediction.answers.tolist(), *prediction.rationales.ravel().tolist())
            writer.writerow([prediction.annot_id, *values])


def write_answers(path: Path, predictions: Sequence[VcrPrediction]) -> None:
    """The same for questions whose right answer is given: a row of four probabilities for each problem."""
    header = [f"{kind}_{choice}" for kind in ("answer", "rationale") for choice in range(CHOICES)]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["annot_id", *header, "answer_label", "rationale_label"])
        for p in sorted(predictions, key=lambda p: _number(p.annot_id)):
            writer.writerow(
                [p.annot_id, *p.answers.tolist(), *p.rationales.tolist(), p.answer_label, p.rationale_label]
            )


def _number(annot_id: str) -> tuple[int, str]:
    digits = annot_id.rpartition("-")[2]
    return (int(digits) if digits.isdecimal() else -1), annot_id
