"""Right answers to the questions of downstream tasks, counted by held-out video."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reserve.tasks.tvqa.annotations import Questions as TvqaQuestions
from reserve.tasks.tvqa.predictions import FILES as TVQA_FILES
from reserve.tasks.tvqa.predictions import KINDS as TVQA_KINDS
from reserve.tasks.vcr.annotations import CHOICES
from reserve.tasks.vcr.annotations import Questions as VcrQuestions

SPLIT = "val"
_EPISODE = re.compile(r"s\d+e\d+")


def by_group(groups: Sequence[str], right: Mapping[str, Sequence[bool]]) -> dict[str, Any]:
    """`right` of questions by kind, summed over the `groups` that they belong to, and how many each group has."""
    names, of = np.unique(list(groups), return_inverse=True)
    sums = {kind: np.bincount(of, np.asarray(values, dtype=np.float64), len(names)) for kind, values in right.items()}
    return {
        "groups": names.tolist(),
        "asked": np.bincount(of, minlength=len(names)).tolist(),
        "right": {kind: values.tolist() for kind, values in sums.items()},
    }


def tvqa(data: Path, predictions: Path) -> dict[str, Any]:
    """From the files that an evaluation wrote below `predictions`: right from sound, from subtitles, and from both."""
    questions = list(TvqaQuestions(data, SPLIT))
    right = {}
    for kind in TVQA_KINDS:
        (path,) = predictions.rglob(f"{kind}/{TVQA_FILES[SPLIT]}")
        answers = json.loads(path.read_text("utf-8"))
        right[kind] = [answers[f"{question.qid:06d}"] == question.label for question in questions]
    return by_group([_episode(question.vid_name) for question in questions], right)


def _episode(clip: str) -> str:
    """The season and episode of a clip. `reserve demo-tasks` gives the clips of a video the same, in several shows."""
    return next(part for part in clip.split("_") if _EPISODE.fullmatch(part))


def vcr(data: Path, predictions: Path) -> dict[str, Any]:
    """From the file that an evaluation wrote into `predictions`: right answers, and rationales given the answer."""
    movies = {question.annot_id: Path(question.image).parent.name for question in VcrQuestions(data, SPLIT)}
    with (predictions / f"vcr_{SPLIT}.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    right = {
        name: [_best(row, kind) == int(row[f"{kind}_label"]) for row in rows]
        for name, kind in (("Q->A", "answer"), ("QA->R", "rationale"))
    }
    return by_group([movies[row["annot_id"]] for row in rows], right)


def _best(row: Mapping[str, str], kind: str) -> int:
    return int(np.argmax([float(row[f"{kind}_{choice}"]) for choice in range(CHOICES)]))
