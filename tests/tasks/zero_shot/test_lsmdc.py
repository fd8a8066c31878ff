from __future__ import annotations

import numpy as np
import pytest

import reserve
from reserve.errors import BadInput
from reserve.tasks.zero_shot.lsmdc import Lsmdc
from reserve.tasks.zero_shot.task import Answer, answer_questions
from tests.tasks.zero_shot.small_sets import lsmdc_folder, small_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return lsmdc_folder(tmp_path_factory.mktemp("lsmdc"))


def test_it_runs_end_to_end(folder):
    task = Lsmdc(folder)
    assert task.vocabulary == ("door", "opens", "walks")
    check = task.check_folder()
    assert not check.problems
    assert "sentences with one blank: 3 of 5" in check.lines
    found = answer_questions(task, small_model(), reserve.Tokenizer.load())
    answers = [found[number] for number in range(5)]
    assert [answer.logits is None for answer in answers] == [False, False, True, True, False]
    scores = task.scores(answers)
    assert scores["accuracy"].count == 5
    assert "0 of 5 answers are not among them and count as wrong" in scores.notes
    reason = "its sentence does not have exactly one blank"
    assert f"2 of 5 questions have no answer and count as wrong: {reason} (2)" in scores.notes
    written = task.predictions(answers)
    assert [row["line"] for row in written] == [1, 2, 3, 4, 5]
    assert written[2] == {"line": 3, "video_id": task.questions[2].video, "answer": None, "best": [], "failure": reason}
    assert sorted(written[4]["best"]) == ["door", "opens", "walks"]


def test_answers_compare_without_case(folder):
    task = Lsmdc(folder)
    logits = np.array([0, 0, 1], np.float32)
    scores = task.scores([Answer(logits)] * 5)
    assert scores["accuracy"].value == 2 / 5


def test_blanks_become_masks(folder):
    statements = [question.statement for question in Lsmdc(folder).questions]
    assert statements == ["SOMEONE<|MASK|> the door.", "SOMEONE opens the<|MASK|>.", None, None, 'He "<|MASK|>" away.']


def test_clips_are_cut_into_equal_segments(folder):
    task = Lsmdc(folder)
    for number, count in ((0, 1), (4, 4)):
        video = reserve.open_video(task.video_files[task.questions[number].video])
        query = task.query(task.questions[number], video)
        assert query.texts == (*[None] * (count - 1), task.questions[number].statement)
        assert query.segments[-1].end == pytest.approx(video.duration, abs=1e-3)


def test_a_header_line_is_skipped(folder, tmp_path):
    with_header = Lsmdc(lsmdc_folder(tmp_path / "data", header=True))
    assert with_header.vocabulary == Lsmdc(folder).vocabulary
    assert [q.statement for q in with_header.questions] == [q.statement for q in Lsmdc(folder).questions]


def test_the_vocabulary_has_the_size_asked_for(folder):
    task = Lsmdc(folder, vocabulary_size=1)
    assert task.vocabulary == ("door",)
    logits = np.zeros(1, np.float32)
    assert "3 of 5 answers are not among them and count as wrong" in task.scores([Answer(logits)] * 5).notes
    with pytest.raises(ValueError, match="vocabulary_size must be at least 1; got 0"):
        Lsmdc(folder, vocabulary_size=0)


def test_a_training_split_without_sentences_is_an_error(tmp_path):
    folder = lsmdc_folder(tmp_path / "data")
    (folder / "LSMDC16_annos_training_FIB.csv").write_text("\n")
    assert "training_FIB.csv has no answers, which are the options" in str(Lsmdc(folder).check_folder())


def test_broken_files_are_named(tmp_path):
    with pytest.raises(BadInput, match=r"LSMDC16_annos_val_FIB\.csv does not exist.*LSMDC 2016"):
        Lsmdc(tmp_path).questions  # noqa: B018
    (tmp_path / "LSMDC16_annos_val_FIB.csv").write_text("a\tb\n")
    with pytest.raises(BadInput, match="line 1 must have 8 columns; it has 2"):
        Lsmdc(tmp_path).questions  # noqa: B018
