"""TVQA's annotations: genuine samples, and what is refused."""

from __future__ import annotations

import json
import shutil

import pytest

from reserve.errors import BadInput
from reserve.tasks.tvqa.annotations import WHOLE_CLIP, Questions, parse_span

GOOD = {f"a{i}": f"answer {i}" for i in range(5)} | {
    "q": "Who is it?",
    "qid": 12,
    "show_name": "The Big Bang Theory",
    "ts": "1.5-3",
    "vid_name": "s01e02_seg01_clip_03",
    "answer_idx": 4,
}


def write(folder, *records, split="train"):
    path = folder / "tvqa_qa_release" / f"tvqa_{split}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_genuine_annotations_are_read(shared_dir, tmp_path):
    samples = shared_dir / "realdata" / "annotations" / "tvqa"
    (tmp_path / "tvqa_qa_release").mkdir()
    shutil.copy(samples / "tvqa_train.sample.jsonl", tmp_path / "tvqa_qa_release" / "tvqa_train.jsonl")
    shutil.copy(samples / "tvqa_test_public.head.jsonl", tmp_path / "tvqa_qa_release" / "tvqa_test_public.jsonl")

    train, test = Questions(tmp_path, "train"), list(Questions(tmp_path, "test"))

    assert train[0].id == "000007~met_s06e22_seg01_clip_02"
    # The genuine train sample has no show_name: the clip's name decides.
    assert (train[0].show, train[0].label, train[0].span) == ("met", 4, (1.21, 8.49))
    assert train[0].choices[1] == "Nachos"
    assert [question.show for question in test[:3]] == ["bbt", "castle", "house"]
    assert {question.label for question in test} == {None}
    assert "friends_s06e24-25_seg02_clip_40" in {question.vid_name for question in test}


def test_clips_of_the_big_bang_theory_have_no_prefix(tmp_path):
    write(tmp_path, {k: v for k, v in GOOD.items() if k != "show_name"})

    assert Questions(tmp_path, "train")[0].show == "bbt"


def test_with_the_name_of_the_series_a_clip_may_have_any_name(tmp_path):
    write(tmp_path, GOOD | {"vid_name": "Épisode 7, clip 3"})

    assert (Questions(tmp_path, "train")[0].show, Questions(tmp_path, "train")[0].id) == (
        "bbt",
        "000012~Épisode 7, clip 3",
    )


@pytest.mark.parametrize(
    ("ts", "span"),
    [
        ("48.62-60.02", (48.62, 60.02)),
        ("nan-nan", WHOLE_CLIP),
        ("NaN-12", WHOLE_CLIP),
        ("3-nan", WHOLE_CLIP),
        (" 0 - 9. ", (0.0, 9.0)),
        ("-1.5-2e1", (-1.5, 20.0)),
        ("8-3", (8.0, 3.0)),
    ],
)
def test_spans(ts, span):
    assert parse_span(ts, "a line") == span


@pytest.mark.parametrize("ts", ["", "5", "a-b", "1-2-3", "1,2-3,4", "inf-3", "1e300-3"])
def test_other_spans_are_refused(ts):
    with pytest.raises(BadInput, match="a line: 'ts' must be"):
        parse_span(ts, "a line")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer_idx": 5}, "line 1: 'answer_idx' must be from 0 to 4; got 5"),
        ({"answer_idx": None}, "line 1 has no 'answer_idx'"),
        ({"show_name": "Lost"}, "line 1: 'show_name' must be one of Grey's Anatomy, .*; got 'Lost'"),
        ({"show_name": None, "vid_name": "lost_s01e01_seg01_clip_00"}, "names no known series; it must look"),
        ({"show_name": None, "vid_name": "clip 7"}, "names no known series; it must look"),
        ({"vid_name": "../../etc/passwd"}, "line 1: 'vid_name' must be the name of a clip, not a path"),
        ({"vid_name": ".."}, "'vid_name' must be the name of a clip"),
        ({"vid_name": "a\\b"}, "'vid_name' must be the name of a clip"),
        ({"a3": None}, "line 1 has no 'a3'"),
        ({"qid": -1}, "'qid' must be at least 0"),
        ({"ts": "soon"}, "'ts' must be two numbers"),
    ],
)
def test_bad_annotations_are_named(tmp_path, change, message):
    write(tmp_path, GOOD | change)

    with pytest.raises(BadInput, match=message):
        list(Questions(tmp_path, "train"))


def test_a_qid_of_two_questions_is_refused(tmp_path):
    write(tmp_path, GOOD, GOOD)

    with pytest.raises(BadInput, match=r"line 2: qid 12 is also that of .*line 1"):
        list(Questions(tmp_path, "train"))


def test_a_missing_file_is_named_with_its_source(tmp_path):
    with pytest.raises(BadInput, match=r"tvqa_val\.jsonl does not exist: .*tvqa\.cs\.unc\.edu"):
        Questions(tmp_path, "val")


def test_a_file_without_questions_is_refused(tmp_path):
    write(tmp_path)
    (tmp_path / "tvqa_qa_release" / "tvqa_train.jsonl").write_text("\n")

    with pytest.raises(BadInput, match="holds no question"):
        list(Questions(tmp_path, "train"))
