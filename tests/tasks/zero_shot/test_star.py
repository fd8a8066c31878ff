from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

import reserve
from reserve.errors import BadInput
from reserve.tasks.zero_shot.star import Star
from reserve.tasks.zero_shot.task import Answer, Unanswerable, answer_questions, equal_segments
from tests.tasks.zero_shot.small_sets import small_model, star_folder, star_record, write_json


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return star_folder(tmp_path_factory.mktemp("star"))


def answered(task, right):
    """Answers of which `right` says which are right."""
    found = []
    for question, good in zip(task.questions, right, strict=True):
        logits = np.zeros(4, np.float32)
        logits[(question.right + (not good)) % 4] = 1
        found.append(Answer(logits))
    return found


def test_the_genuine_sample_loads(shared_dir, tmp_path):
    sample = shared_dir / "realdata/annotations/star/STAR_val.sample.json"
    (tmp_path / "STAR_val.json").write_bytes(sample.read_bytes())
    (question,) = Star(tmp_path).questions
    assert (question.key, question.type, question.video) == ("Interaction_T1_13", "Interaction", "6H78U")
    assert (question.start, question.end) == (11.1, 19.6)
    assert question.statement == "<|MASK|> was tidied up by the person."
    assert [Star(tmp_path).options[i] for i in question.choices][question.right] == "The clothes"


def test_it_runs_end_to_end(folder):
    task = Star(folder)
    check = task.check_folder()
    assert not check.problems
    assert "Interaction 3, Sequence 1, Prediction 1, Feasibility 1" in check.lines
    found = answer_questions(task, small_model(), reserve.Tokenizer.load())
    answers = [found[number] for number in range(6)]
    assert all(answer.logits.shape == (4,) for answer in answers)
    assert [score.count for score in task.scores(answers).scores] == [3, 1, 1, 1, 6, 6]
    written = task.predictions(answers)
    assert {kind: len(rows) for kind, rows in written.items()} == {
        "Interaction": 3,
        "Sequence": 1,
        "Prediction": 1,
        "Feasibility": 1,
    }
    # The ids of the choices, which here run backwards.
    assert written["Sequence"] == [{"question_id": "Sequence_T1_3", "answer": 3 - int(answers[2].logits.argmax())}]
    json.dumps(written, allow_nan=False)


def test_scores_by_type_and_both_means(folder):
    task = Star(folder)
    scores = task.scores(answered(task, [True, False, True, False, True, True]))
    values = {score.name: score.value for score in scores.scores}
    assert values == pytest.approx(
        {
            "Interaction": 2 / 3,
            "Sequence": 1,
            "Prediction": 0,
            "Feasibility": 1,
            "mean over questions": 4 / 6,
            "mean over types": (2 / 3 + 1 + 0 + 1) / 4,
        }
    )
    assert all(score.chance == 0.25 for score in scores.scores)
    missing = [Answer(None, "no video")] * 6
    assert task.scores(missing)["mean over questions"].value == 0
    assert "6 of 6 questions have no answer and count as wrong: no video (6)" in task.scores(missing).notes
    assert task.predictions(missing)["Sequence"] == [{"question_id": "Sequence_T1_3", "answer": 3}]


def test_the_test_split_has_no_scores(folder):
    task = Star(folder, split="test")
    answers = [Answer(np.arange(4, dtype=np.float32))] * 6
    assert task.scores(answers).scores == ()
    assert "questions without answers have no scores" in task.scores(answers).notes
    assert Counter(row["answer"] for rows in task.predictions(answers).values() for row in rows) == {0: 6}


def test_a_question_is_about_its_stretch(folder):
    task = Star(folder, segment_seconds=2)
    video = reserve.open_video(folder / "Charades_v1_480/AAAAA.mp4")
    query = task.query(task.questions[1], video)
    assert query.segments == equal_segments(1.1, 9.6, 2)
    assert [span.start for span in query.segments] == [1.1, 3.225, 5.35, 7.475]
    assert query.texts == (None, None, None, "the person<|MASK|> the door.")


def test_a_stretch_after_the_end_of_the_video_is_not_answered(folder):
    """Such as of a video that was cut to the stretch of one question."""
    task = Star(folder)
    video = reserve.open_video(folder / "Charades_v1_480/AAAAA.mp4")
    past = replace(task.questions[1], start=video.duration, end=video.duration + 5)
    with pytest.raises(Unanswerable, match="its video ends before its stretch begins"):
        task.query(past, video)
    assert task.query(replace(past, start=video.duration - 0.1), video)


def test_a_model_without_numbers_answers_nothing(folder):
    model = small_model()
    torch.nn.init.constant_(model.head.weight, float("nan"))
    answers = answer_questions(Star(folder), model, reserve.Tokenizer.load())
    assert {answer.failure for answer in answers.values()} == {"the model's logits are not finite"}


def test_a_split_without_questions_is_an_error(tmp_path):
    write_json(tmp_path / "STAR_val.json", [])
    assert "the split 'val' of star has no questions" in str(Star(tmp_path).check_folder())


def test_there_is_nothing_to_reproduce_of_the_release(tmp_path):
    with pytest.raises(ValueError, match="as_released must be false for star, whose code was never released"):
        Star(tmp_path, as_released=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question_id": "Odd_T1_1"}, "'question_id' must begin with one of Interaction, Sequence"),
        ({"choices": []}, "'choices' must hold two or more; got 0"),
        ({"choices": [1, 2]}, "choice 1 must be a map of fields; got int"),
        ({"answer": "The cat."}, "'answer' must be one of the choices; got 'The cat.'"),
        ({"start": 9.6}, "'start' must be at least 0 and before 'end'; got 9.6 and 9.6"),
        ({"end": "late"}, "'end' must be a finite number; got 'late'"),
    ],
)
def test_broken_annotations_are_named(tmp_path, changes, message):
    record = star_record("Sequence_T1_1", "What?", ["A.", "B."], "A.", "AAAAA") | changes
    write_json(tmp_path / "STAR_val.json", [record])
    with pytest.raises(BadInput) as error:
        Star(tmp_path).questions  # noqa: B018
    assert message in str(error.value)
    assert "STAR_val.json, entry 1" in str(error.value)


def test_missing_files_are_named_with_their_source(tmp_path):
    assert "STAR_val.json does not exist: the val questions, from STAR" in str(Star(tmp_path).check_folder())
    with pytest.raises(ValueError, match=r"segment_seconds must be at least 0\.1 and finite; got 0"):
        Star(tmp_path, segment_seconds=0)
