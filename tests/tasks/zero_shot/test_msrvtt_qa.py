from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import reserve
from reserve.config import TrainConfig
from reserve.errors import BadInput
from reserve.tasks.zero_shot.msrvtt_qa import TOO_LONG, MsrvttQA, VideoQuestion, video_segments
from reserve.tasks.zero_shot.task import Answer, Unanswerable, answer_questions
from tests.tasks.zero_shot.small_sets import msrvtt_folder, small_model, write_json


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return msrvtt_folder(tmp_path_factory.mktemp("msrvtt"))


def test_segment_times_are_the_references(shared_dir):
    for case in json.loads((shared_dir / "golden/msrvtt.json").read_text())["segment_times"]:
        found = video_segments(case["video_length"])
        assert [span._asdict() for span in found] == case["segments"]
        assert (len(found) > 8) == case["too_many"]


def test_accuracies_are_the_references(shared_dir, tmp_path):
    case = json.loads((shared_dir / "golden/msrvtt.json").read_text())
    failures = {"bad_template": "no statement", "no_features": "no video", "failed": TOO_LONG}
    answers = [
        Answer(np.array(item["scores"], np.float32))
        if item["kind"] == "scored"
        else Answer(None, failures[item["kind"]])
        for item in case["items"]
    ]
    task = MsrvttQA(tmp_path, as_released=True)
    task.__dict__["vocabulary"] = tuple(case["vocabulary_for_items"])
    task.__dict__["statements_file"] = None
    task.__dict__["questions"] = [
        VideoQuestion(str(i), f"video{i}", i, item["answer"], "x") for i, item in enumerate(case["items"])
    ]
    scores = task.scores(answers)
    for k in (1, 5, 10):
        score = scores[f"top-{k}"]
        assert round(100 * score.value, 3) == case["accuracy_percent"][f"top{k}"]
        assert score.count == case["counted"][f"top{k}"]
    assert f"1 questions are left out, as released: {TOO_LONG}" in scores.notes


def test_the_genuine_annotations_load(shared_dir, tmp_path):
    source = shared_dir / "realdata/annotations/msrvtt_qa/val_qa.head.json"
    (tmp_path / "val_qa.json").write_bytes(source.read_bytes())
    task = MsrvttQA(tmp_path)
    assert len(task.questions) == 1200
    first = task.questions[0]
    assert (first.key, first.video, first.answer) == ("158581", "video6513", "couch")
    assert first.statement == "three people are sitting on<|MASK|>."
    problem = str(task.check_folder())
    assert "train_qa.json does not exist: the train questions, from MSRVTT-QA" in problem


def test_it_runs_end_to_end(folder):
    task = MsrvttQA(folder, vocabulary_size=3)
    assert task.vocabulary == ("dog", "sing", "two")
    check = task.check_folder()
    assert not check.problems
    assert "statements from rules: 7 of 7 usable" in check.lines
    found = answer_questions(task, small_model(), reserve.Tokenizer.load())
    answers = [found[number] for number in range(7)]
    assert all(answer.logits is not None and answer.logits.shape == (3,) for answer in answers)
    scores = task.scores(answers)
    assert [(score.name, score.count) for score in scores.scores] == [("top-1", 7), ("top-5", 7), ("top-10", 7)]
    # "car" and "banjo" are not among the options.
    assert scores["top-10"].value == pytest.approx(5 / 7)
    written = task.predictions(answers)
    assert written[0] == {
        "id": 100,
        "video_id": 6513,
        "answer": written[0]["best"][0],
        "best": [task.vocabulary[i] for i in np.argsort(-answers[0].logits)],
        "failure": None,
    }


def test_the_last_eight_segments_of_a_long_video_are_read(folder):
    task = MsrvttQA(folder)
    video = reserve.open_video(folder / "video/video6516.mp4")
    query = task.query(task.questions[6], video)
    assert query.segments == video_segments(video.duration)[-8:]
    assert query.texts == (*[None] * 7, "a man is<|MASK|>.")
    with pytest.raises(Unanswerable, match="more than 8 segments of 3 s"):
        replace(task, as_released=True).query(task.questions[6], video)


def test_a_short_video_is_one_segment(folder):
    task = MsrvttQA(folder)
    video = reserve.open_video(folder / "video/video6514.mp4")
    query = task.query(task.questions[2], video)
    assert query.texts == ("<|MASK|> is singing.",)
    assert query.segments[0].start == 0
    assert query.segments[0].mid == pytest.approx(1, abs=0.1)
    with pytest.raises(Unanswerable, match="shorter than a segment of 3 s"):
        replace(task, as_released=True).query(task.questions[2], video)


def test_training_questions_without_any_answer_are_an_error(tmp_path):
    folder = msrvtt_folder(tmp_path / "data")
    write_json(folder / "train_qa.json", [])
    assert "train_qa.json has no answers, which are the options" in str(MsrvttQA(folder).check_folder())


def test_statements_come_from_a_file(folder, tmp_path):
    path = write_json(tmp_path / "mine.json", {"100": "a man is _.", "101": "_ people and _ dogs", "103": "no blank"})
    task = MsrvttQA(folder, statements=path)
    assert [question.statement for question in task.questions] == ["a man is<|MASK|>.", *[None] * 6]
    assert f"statements from {path}: 1 of 7 usable" in task.check_folder().lines
    answers = answer_questions(task, small_model(), reserve.Tokenizer.load())
    assert answers[1].failure == "it has no statement with exactly one blank"
    scores = task.scores([answers[number] for number in range(7)])
    assert any(note.startswith("6 of 7 questions have no answer and count as wrong") for note in scores.notes)
    assert "statements: mine.json" in scores.notes


def test_a_video_that_cannot_be_read_counts_as_wrong(tmp_path):
    folder = msrvtt_folder(tmp_path / "data")
    (folder / "video/video6513.mp4").write_bytes(b"not a video")
    (folder / "video/video6516.mp4").unlink()
    task = MsrvttQA(folder)
    found = answer_questions(task, small_model(), reserve.Tokenizer.load())
    assert found[0].failure.endswith(
        "video6513.mp4: not a media file that can be decoded: Invalid data found when processing input"
    )
    assert found[6].failure == "there is no video video6516"
    assert found[2].logits is not None
    scores = task.scores([found[number] for number in range(7)])
    assert scores["top-10"].count == 7
    assert task.predictions([found[number] for number in range(7)])[6]["failure"] == "there is no video video6516"


def test_ranks_share_the_videos(folder):
    task, model, tokenizer = MsrvttQA(folder), small_model(), reserve.Tokenizer.load()
    whole = answer_questions(task, model, tokenizer)
    seen = []
    parts = [
        answer_questions(task, model, tokenizer, rank=rank, world_size=3, progress=lambda *done: seen.append(done))
        for rank in range(3)
    ]
    assert sorted(number for part in parts for number in part) == list(range(7))
    for part in parts:
        for number, answer in part.items():
            np.testing.assert_array_equal(answer.logits, whole[number].logits)
    assert (2, 2) in seen


def test_threads_give_the_same_answers(folder):
    task, model, tokenizer = MsrvttQA(folder), small_model(), reserve.Tokenizer.load()
    whole = answer_questions(task, model, tokenizer)
    threaded = answer_questions(task, model, tokenizer, workers=3)
    assert threaded.keys() == whole.keys()
    for number, answer in threaded.items():
        np.testing.assert_array_equal(answer.logits, whole[number].logits)
    with pytest.raises(ValueError, match="workers must be at least 1; got 0"):
        answer_questions(task, model, tokenizer, workers=0)


def test_threads_compute_in_the_precision_asked_for(folder, monkeypatch):
    seen = set()
    model = small_model()
    forward = model.joint_transformer.forward
    monkeypatch.setattr(
        model.joint_transformer, "forward", lambda *x: seen.add(torch.is_autocast_enabled("cpu")) or forward(*x)
    )
    answer_questions(
        MsrvttQA(folder), model, reserve.Tokenizer.load(), config=TrainConfig(precision="bfloat16"), workers=2
    )
    assert seen == {True}


def test_an_error_of_a_thread_ends_the_run(folder, monkeypatch):
    monkeypatch.setattr(MsrvttQA, "query", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        answer_questions(MsrvttQA(folder), small_model(), reserve.Tokenizer.load(), workers=2)


def test_broken_annotations_are_named(tmp_path):
    write_json(tmp_path / "val_qa.json", [{"id": 1, "question": "what?", "answer": "x"}])
    with pytest.raises(BadInput, match=r"val_qa\.json, entry 1 has no 'video_id'"):
        MsrvttQA(tmp_path).questions  # noqa: B018
    with pytest.raises(ValueError, match="vocabulary_size must be at least 1; got 0"):
        MsrvttQA(tmp_path, vocabulary_size=0)


def test_a_vocabulary_that_does_not_fit_the_model_is_an_error(folder):
    model = reserve.MerlotReserve(replace(small_model().config, vocab_size=2048))
    with pytest.raises(ValueError, match="the vocabulary has 32768 tokens, more than the model's 2048"):
        answer_questions(MsrvttQA(folder), model, reserve.Tokenizer.load())
