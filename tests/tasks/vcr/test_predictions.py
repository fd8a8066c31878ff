from __future__ import annotations

import csv

import numpy as np

from reserve.tasks.vcr.predictions import VcrPrediction, vcr_scores, write_answers, write_submission


def prediction(annot_id, image, answer, rationale, labels=(0, 0)):
    chosen = np.eye(4, dtype=np.float32)
    return VcrPrediction(annot_id, image, chosen[answer], chosen[rationale], *labels)


def test_both_must_be_right_for_the_last_score():
    made = [prediction("val-0", "a", 0, 0), prediction("val-1", "b", 0, 1), prediction("val-2", "c", 2, 0)]
    made += [prediction("val-3", "d", 3, 3, labels=(3, 3))]
    scores = vcr_scores(made)
    assert [(score.name, score.value) for score in scores] == [("Q->A", 0.75), ("QA->R", 0.75), ("Q->AR", 0.5)]
    assert [score.count for score in scores] == [4, 4, 4]


def test_questions_about_one_picture_are_resampled_together():
    """Of two pictures, one all right and one all wrong, a sample has 0, a half or all of the questions right."""
    made = [prediction(f"val-{n}", "ab"[n % 2], n % 2, n % 2) for n in range(60)]
    for score in vcr_scores(made):
        assert (score.low, score.value, score.high) == (0, 0.5, 1)


def test_rows_are_sorted_by_the_number_in_their_id(tmp_path):
    ids = ["test-10", "test-9", "test-100", "test-0"]
    made = [
        VcrPrediction(name, "a", np.full(4, 0.25, np.float32), np.full((4, 4), 0.25, np.float32), None, None)
        for name in ids
    ]
    write_submission(tmp_path / "test.csv", made)
    rows = list(csv.reader((tmp_path / "test.csv").open()))
    assert [row[0] for row in rows] == ["annot_id", "test-0", "test-9", "test-10", "test-100"]
    assert {len(row) for row in rows} == {21}
    write_answers(tmp_path / "val.csv", [prediction("val-1", "a", 2, 3, labels=(2, 1))])
    (header, row) = csv.reader((tmp_path / "val.csv").open())
    assert dict(zip(header, row, strict=True)) == {
        "annot_id": "val-1",
        **{f"answer_{n}": str(float(n == 2)) for n in range(4)},
        **{f"rationale_{n}": str(float(n == 3)) for n in range(4)},
        "answer_label": "2",
        "rationale_label": "1",
    }
