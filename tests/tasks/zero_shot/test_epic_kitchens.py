from __future__ import annotations

import json

import numpy as np
import pytest

import reserve
from reserve.errors import BadInput
from reserve.tasks.zero_shot.epic_kitchens import PROMPT, EpicKitchens, anticipation_segments, seconds_of
from reserve.tasks.zero_shot.task import Answer, answer_questions
from tests.tasks.zero_shot.small_sets import epic_folder, small_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return epic_folder(tmp_path_factory.mktemp("epic"))


def test_segment_times_are_the_references(shared_dir):
    cases = json.loads((shared_dir / "golden/ek100.json").read_text())["segment_times"]
    for case in cases:
        found = anticipation_segments(case["action_start"])
        assert [span._asdict() for span in found] == case["segments"]


def test_times_are_read_as_seconds():
    assert seconds_of("01:02:03.5") == 3723.5
    assert seconds_of("00:00:00.00") == 0
    assert seconds_of("00:01:22.29") == 82.29  # 60 + 22.29 is another float


@pytest.mark.parametrize("text", ["", "1:2", "00:00:nan", "00:00:inf", "00:-1:00.0", "00:00:1e3", "0:0:0:0"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="hh:mm:ss"):
        seconds_of(text)


def test_the_genuine_annotations_load(shared_dir):
    task = EpicKitchens(shared_dir / "realdata/annotations/ek100")
    assert len(task.questions) == 9668
    assert len(task.options) == 3806
    first = task.questions[0]
    assert (first.key, first.video, first.participant, first.start) == ("P01_11_0", "P01_11", "P01", 0.0)
    texts = set(task.options)
    assert all(question.truth is not None and question.truth.text in texts for question in task.questions)
    check = task.check_folder()
    assert check.lines[:2] == ["epic-kitchens, val: 9668 questions", "3806 options"]
    assert "138 of 138 videos are missing" in str(check)
    assert "epic-kitchens.github.io" in str(check)


def test_perfect_and_missing_answers(shared_dir):
    """Scores of 400 genuine actions, of which every fourth has no answer."""
    task = EpicKitchens(shared_dir / "realdata/annotations/ek100", limit=400)
    number = {action.text: i for i, action in enumerate(task.actions)}
    answers = []
    for i, question in enumerate(task.questions):
        logits = np.zeros(len(task.actions), np.float32)
        logits[number[question.truth.text]] = 1
        answers.append(Answer(logits) if i % 4 else Answer(None, "no video"))
    scores = task.scores(answers)
    assert scores["action, top-1"].value == 0.75
    assert scores["noun, top-5"].value == 0.75
    assert scores["verb, class-mean recall@5, unseen"].count == 0
    assert "100 of 400 questions have no answer and count as wrong: no video (100)" in scores.notes
    released = EpicKitchens(task.data, limit=400, as_released=True).scores(answers)
    boards = sum(" " in question.truth.noun_name for i, question in enumerate(task.questions) if i % 4)
    assert boards
    assert released["noun, top-1"].value == pytest.approx(0.75 - boards / 400)
    assert released["noun, class-mean recall@5, overall"] == scores["noun, class-mean recall@5, overall"]


def test_it_runs_end_to_end(folder):
    task = EpicKitchens(folder, sls_pt=2, sls_td=3)
    assert not task.check_folder().problems
    found = answer_questions(task, small_model(), reserve.Tokenizer.load())
    answers = [found[number] for number in range(5)]
    assert all(answer.logits is not None and answer.logits.shape == (6,) for answer in answers)
    # Two actions at the same time are one reading.
    assert np.array_equal(answers[1].logits, answers[2].logits)
    scores = task.scores(answers)
    assert len(scores.scores) == 15
    assert scores["action, top-5"].count == 5
    assert scores["verb, class-mean recall@5, unseen"].count == 2
    assert scores["verb, class-mean recall@5, tail"].count == 1
    assert scores["action, class-mean recall@5, tail"].count == 2
    assert "options: the 6 actions of actions.csv" in scores.notes
    written = task.predictions(answers)
    assert (written["version"], written["challenge"]) == ("0.2", "action_anticipation")
    assert (written["sls_pt"], written["sls_tl"], written["sls_td"]) == (2, 0, 3)
    assert list(written["results"]) == ["P01_11_0", "P01_11_1", "P01_11_2", "P18_01_0", "P18_01_1"]
    assert len(written["results"]["P18_01_1"]["verb"]) == 97
    json.dumps(written, allow_nan=False)


def test_a_question_is_eight_segments_with_the_prompt_last(folder):
    task = EpicKitchens(folder)
    query = task.query(task.questions[1], reserve.open_video(folder / "videos/P01/P01_11.MP4"))
    assert query.segments == anticipation_segments(5.25)
    assert query.texts == (None,) * 7 + (PROMPT,)


def test_without_actions_csv_the_options_are_those_of_training(tmp_path):
    task = EpicKitchens(epic_folder(tmp_path / "data", actions_file=False))
    expected = ["take plate", "take bottle opener", "put chopping board", "turn-on tap", "turn-on plate"]
    assert list(task.options) == expected
    assert "options: the 5 actions of EPIC_100_train.csv" in task.scores([Answer(None, "x")] * 5).notes
    (task.data / "EPIC_100_train.csv").unlink()
    with pytest.raises(BadInput, match=r"EPIC_100_train\.csv does not exist.*epic-kitchens-100-annotations"):
        EpicKitchens(task.data).actions  # noqa: B018


def test_the_test_split_has_predictions_alone(folder):
    task = EpicKitchens(folder, split="test")
    scores = task.scores([Answer(np.zeros(6, np.float32))] * 5)
    assert scores.scores == ()
    assert "the test split has no labels" in scores.notes
    assert len(task.predictions([Answer(None, "x")] * 5)["results"]) == 5


@pytest.mark.parametrize(
    ("file", "find", "put", "message"),
    [
        ("EPIC_100_validation.csv", "00:00:05.25", "five", "'start_timestamp' must be hh:mm:ss.ff; got 'five'"),
        ("EPIC_100_validation.csv", ",18,", ",300,", "'noun_class' must be 0 to 299; got 300"),
        ("EPIC_100_validation.csv", ",18,", ",19,", r"noun_classes.csv has no class 19, which an annotation has"),
        ("actions.csv", "take tap", "take", "'action' must be a verb and a noun; got 'take'"),
        ("EPIC_100_tail_nouns.csv", "noun\n", "noun\nx\n", "tail_nouns.csv, line 2: 'noun' must be a whole number"),
        ("EPIC_100_unseen_participant_ids_validation.csv", "participant_id", "id", "has no column 'participant_id'"),
    ],
)
def test_broken_annotations_are_named(tmp_path, file, find, put, message):
    folder = epic_folder(tmp_path / "data")
    path = folder / file
    path.write_text(path.read_text().replace(find, put))
    check = EpicKitchens(folder).check_folder()
    assert message in str(check)


def test_no_actions_are_an_error(tmp_path):
    folder = epic_folder(tmp_path / "data")
    (folder / "actions.csv").write_text("id,verb,noun,action\n")
    assert "actions.csv has no actions, which are the options" in str(EpicKitchens(folder).check_folder())


def test_missing_files_are_named_with_their_source(tmp_path):
    folder = epic_folder(tmp_path / "data")
    for name in ("EPIC_100_tail_verbs.csv", "videos/P01/P01_11.MP4"):
        (folder / name).unlink()
    problems = EpicKitchens(folder).check_folder().problems
    assert len(problems) == 2
    assert "P01_11" in problems[0]
    assert "EPIC_100_tail_verbs.csv does not exist: the rare verb classes, from the annotations" in problems[1]


def test_settings_are_checked(tmp_path):
    with pytest.raises(ValueError, match="sls_td must be 0 to 5; got 6"):
        EpicKitchens(tmp_path, sls_td=6)
    with pytest.raises(ValueError, match="split must be one of val, test; got 'train'"):
        EpicKitchens(tmp_path, split="train")
    with pytest.raises(ValueError, match="limit must be at least 1; got 0"):
        EpicKitchens(tmp_path, limit=0)
