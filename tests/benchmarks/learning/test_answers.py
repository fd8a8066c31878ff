"""Right answers by video."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from benchmarks.learning import answers
from reserve.fs import write_text_atomic


def test_answers_are_summed_by_group():
    found = answers.by_group(["b", "a", "b"], {"x": [True, False, True], "y": [False, True, False]})
    assert found == {"groups": ["a", "b"], "asked": [1, 2], "right": {"x": [0, 2], "y": [1, 0]}}


def test_clips_of_a_video_are_one_group_whatever_their_show(tmp_path, monkeypatch):
    asked = [("castle_s02e01_seg01_clip_00", 1), ("s02e01_seg01_clip_01", 0), ("met_s02e02_seg01_clip_00", 3)]
    questions = [SimpleNamespace(qid=n, vid_name=clip, label=label) for n, (clip, label) in enumerate(asked)]
    monkeypatch.setattr(answers, "TvqaQuestions", lambda data, split: questions)
    for kind in ("audio", "text", "joint"):
        folder = tmp_path / "step_3_0" / kind
        folder.mkdir(parents=True)
        write_text_atomic(folder / "prediction_val.json", '{"000000": 1, "000001": 0, "000002": 2}')
    found = answers.tvqa(tmp_path, tmp_path)
    assert found["groups"] == ["s02e01", "s02e02"]
    assert found["right"]["text"] == [2, 0]


def test_vcr_is_right_where_the_label_is_most_probable(tmp_path, monkeypatch):
    questions = [SimpleNamespace(annot_id=f"val-{n}", image=f"movie_{n}/a.jpg") for n in range(2)]
    monkeypatch.setattr(answers, "VcrQuestions", lambda data, split: questions)
    columns = [f"{kind}_{choice}" for kind in ("answer", "rationale") for choice in range(4)]
    lines = [
        ",".join(["annot_id", *columns, "answer_label", "rationale_label"]),
        "val-0,0.1,0.6,0.2,0.1,0.7,0.1,0.1,0.1,1,1",
        "val-1,0.1,0.6,0.2,0.1,0.7,0.1,0.1,0.1,0,0",
    ]
    write_text_atomic(tmp_path / "vcr_val.csv", "\n".join(lines))
    found = answers.vcr(tmp_path, tmp_path)
    assert found["groups"] == ["movie_0", "movie_1"]
    assert found["right"] == {"Q->A": pytest.approx([1, 0]), "QA->R": pytest.approx([0, 1])}
