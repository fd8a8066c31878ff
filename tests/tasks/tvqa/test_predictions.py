"""TVQA's scores and submissions."""

from __future__ import annotations

import json
import zipfile

import pytest

from reserve.tasks.tvqa.predictions import Submission, TvqaPrediction, tvqa_scores, write_predictions

PREDICTIONS = [
    TvqaPrediction(7, "a", {"audio": 0, "text": 1, "joint": 1}, 1),
    TvqaPrediction(8, "a", {"audio": 2, "text": 2, "joint": 2}, 2),
    TvqaPrediction(123456, "b", {"audio": 4, "text": 0, "joint": 4}, 4),
    TvqaPrediction(9, "c", {"audio": 0, "text": 0, "joint": 0}, None),
]


def test_scores_count_the_questions_with_an_answer():
    scores = {score.name: score for score in tvqa_scores(PREDICTIONS)}

    assert [scores[f"{kind} accuracy"].value for kind in ("audio", "text", "joint")] == pytest.approx([2 / 3, 2 / 3, 1])
    assert {score.count for score in scores.values()} == {3}
    assert {score.chance for score in scores.values()} == {0.2}


def test_whole_clips_are_resampled():
    """Of two clips, one right and one wrong, samples are all right, half or all wrong, however many questions."""
    clips = [TvqaPrediction(n, "ab"[n % 2], {"audio": n % 2, "text": 0, "joint": 0}, 0) for n in range(40)]

    score = tvqa_scores(clips)[0]

    assert (score.low, score.value, score.high) == (0, 0.5, 1)


def test_a_submission_needs_val_and_test(tmp_path):
    first = write_predictions(tmp_path, "val", PREDICTIONS, Submission())
    assert [path.suffix for path in first] == [".json"] * 3
    assert not list(tmp_path.glob("*.zip"))

    submission = Submission(author="A. Author", model_name="ours", show_on_leaderboard=True)
    second = write_predictions(tmp_path, "test", PREDICTIONS, submission)

    assert sorted(path.name for path in second if path.suffix == ".zip") == [
        f"submission_{kind}.zip" for kind in ("audio", "joint", "text")
    ]
    with zipfile.ZipFile(tmp_path / "submission_text.zip") as file:
        assert json.loads(file.read("prediction_val.json")) == {"000007": 1, "000008": 2, "123456": 0, "000009": 0}
        assert json.loads(file.read("meta.json")) == {
            "model_name": "ours",
            "is_ensemble": False,
            "with_ts": True,
            "show_on_leaderboard": True,
            "author": "A. Author",
            "institution": "",
            "description": "",
            "paper_link": "",
            "code_link": "",
        }


def test_the_training_set_is_not_submitted(tmp_path):
    write_predictions(tmp_path, "val", PREDICTIONS, Submission())
    write_predictions(tmp_path, "train", PREDICTIONS, Submission())

    assert not list(tmp_path.glob("*.zip"))
    assert (tmp_path / "joint" / "prediction_train.json").is_file()
