"""TVQA's predictions: the scores of a split, and the zip files of the leaderboard (SPEC 10.8)."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from reserve.fs import replacing, write_text_atomic
from reserve.tasks.scores import Score, mean_score
from reserve.tasks.tvqa.annotations import CHOICES

KINDS = ("audio", "text", "joint")
"""Answers from sound, from subtitles, and from both."""
FILES = {"val": "prediction_val.json", "test": "prediction_test_public.json", "train": "prediction_train.json"}
_SUBMITTED = ("val", "test")


@dataclass(frozen=True)
class Submission:
    """What meta.json of a submission says of the model."""

    model_name: str = "MERLOT Reserve"
    """Its name on the leaderboard."""
    is_ensemble: bool = False
    """Whether it is several models."""
    with_ts: bool = True
    """Whether it sees the annotated span; this task always shows it."""
    show_on_leaderboard: bool = False
    """Whether the result is public."""
    author: str = ""
    """Who made it."""
    institution: str = ""
    """Where."""
    description: str = ""
    """What it is."""
    paper_link: str = ""
    """Address of a paper."""
    code_link: str = ""
    """Address of the code."""


@dataclass(frozen=True, slots=True)
class TvqaPrediction:
    """One question: the `answer` chosen by kind, the right one if it is known, and the clip that it is about."""

    qid: int
    clip: str
    answers: dict[str, int]
    label: int | None


def tvqa_scores(predictions: Sequence[TvqaPrediction]) -> tuple[Score, ...]:
    """The accuracy of each kind over the questions with a known answer; those about one clip are resampled together."""
    known = [p for p in predictions if p.label is not None]
    clips = np.unique([p.clip for p in known], return_inverse=True)[1] if known else None
    return tuple(
        mean_score(
            f"{kind} accuracy", np.array([p.answers[kind] == p.label for p in known]), chance=1 / CHOICES, groups=clips
        )
        for kind in KINDS
    )


def write_predictions(
    folder: Path, split: str, predictions: Sequence[TvqaPrediction], submission: Submission
) -> list[Path]:
    """Writes the predictions of a split into `folder`, one sub-folder for each kind, and the leaderboard's zip files.

    A zip needs the predictions of val and test, so it is written once `folder` has both. Returns what was written.
    """
    written = []
    for kind in KINDS:
        own = folder / kind
        own.mkdir(parents=True, exist_ok=True)
        answers = {f"{p.qid:06d}": p.answers[kind] for p in predictions}
        write_text_atomic(own / FILES[split], json.dumps(answers, indent=0) + "\n")
        written.append(own / FILES[split])
        submitted = [own / FILES[name] for name in _SUBMITTED]
        if split in _SUBMITTED and all(path.is_file() for path in submitted):
            path = folder / f"submission_{kind}.zip"
            with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
                for prediction in submitted:
                    file.write(prediction, prediction.name)
                file.writestr("meta.json", json.dumps(asdict(submission), indent=1) + "\n")
            written.append(path)
    return written
