from __future__ import annotations

import json

import pytest

from reserve.errors import BadInput
from reserve.tasks.data_folder import JsonLines, Record
from reserve.tasks.vcr.annotations import Questions, check_references, read_objects, read_question
from tests.helpers.vcr_folder import question


def changed(**fields):
    return Record(question(3, "val", 1) | fields, "val.jsonl, line 4")


def test_a_question_is_read():
    read = read_question(changed())
    assert (read.annot_id, read.answer_label, read.rationale_label) == ("val-3", 1, 1)
    assert read.question == ("What", "does", (0, 1), "see", "?")
    assert len(read.texts) == 9


def test_the_test_split_has_no_labels():
    read = read_question(Record(question(0, "test", 0), "x"))
    assert (read.answer_label, read.rationale_label) == (None, None)


def test_the_genuine_sample_is_read(shared_dir):
    (record,) = JsonLines(shared_dir / "realdata" / "annotations" / "vcr" / "train.sample.jsonl")
    read = read_question(record)
    assert read.annot_id == "train-0"
    assert read.question == ("Does", (2,), "feel", "comfortable", "?")
    assert (read.answer_label, read.rationale_label) == (1, 1)
    assert read.image.endswith("@0.jpg")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"question": "What?"}, "val.jsonl, line 4: 'question' must be a list; got 'What[?]'"),
        ({"question": ["a", 3]}, "'question': a token must be text or a list of object indices; got 3"),
        ({"question": ["a", []]}, "must be text or a list of object indices"),
        ({"question": ["a", [True]]}, "must be text or a list of object indices"),
        ({"answer_choices": [["a"]] * 3}, "'answer_choices' must have 4 choices; got 3"),
        ({"rationale_choices": [["a"]] * 3 + ["b"]}, "'rationale_choices' must be a list of tokens; got 'b'"),
        ({"answer_label": 4}, r"'answer_label' must be in \[0, 4\); got 4"),
        ({"answer_label": "one"}, "'answer_label' must be a whole number; got 'one'"),
        ({"annot_id": None}, "line 4 has no 'annot_id'"),
        ({"img_fn": "../../etc/passwd"}, "'img_fn' must be a path within vcr1images"),
        ({"metadata_fn": "/etc/passwd"}, "'metadata_fn' must be a path within vcr1images"),
    ],
)
def test_what_is_wrong_is_named(fields, message):
    with pytest.raises(BadInput, match=message):
        read_question(changed(**fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"names": ["person", 2]}, "'names' must be a list of text"),
        ({"boxes": [[1, 2, 3, 4]]}, "'boxes' must have x1, y1, x2, y2, at most .* for each of the 2 names"),
        ({"boxes": [[1, 2, 3], [1, 2, 3]]}, "'boxes' must have"),
        ({"boxes": [[1, 2, 3, 4], [1, 2, 3, float("nan")]]}, "'boxes' must have"),
        ({"boxes": [[1, 2, 3, 4], [1, 2, 3, 10**400]]}, "'boxes' must have"),
        ({"boxes": [[1, 2, 3, 4], [1, 2, 3, True]]}, "'boxes' must have"),
        ({"width": 0}, "'width' must be above 0; got 0"),
        ({"width": None}, "has no 'width'"),
    ],
)
def test_metadata_that_cannot_be_used_is_named(tmp_path, fields, message):
    good = {"names": ["person", "dog"], "boxes": [[1, 2, 3, 4, 0.5], [1, 2, 3, 4, 0.5]], "width": 100, "height": 50}
    path = tmp_path / "m.json"
    path.write_text(json.dumps(good))
    assert read_objects(path).boxes == ((1, 2, 3, 4), (1, 2, 3, 4))
    path.write_text(json.dumps(good | fields))
    with pytest.raises(BadInput, match=f"m.json.*{message}"):
        read_objects(path)


def test_objects_that_the_picture_lacks_are_an_error(vcr_folder):
    read = read_question(changed(question=["a", [3]]))
    with pytest.raises(BadInput, match=r"line 4 refers to objects \[3\]; .*json has 3"):
        check_references(read, read_objects(vcr_folder / "vcr1images" / "movie" / "val_0.json"))


def questions(folder, *records, split="val"):
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return Questions(folder, split)


def without(record, *names):
    return {name: value for name, value in record.items() if name not in names}


@pytest.mark.parametrize("label", ["answer_label", "rationale_label"])
def test_train_and_val_need_both_labels(tmp_path, label):
    read = questions(tmp_path, question(0, "val", 0), without(question(1, "val", 1), label))
    assert read[0].answer_label == 0
    with pytest.raises(BadInput, match=rf"val.jsonl, line 2 has no '{label}'"):
        read[1]
    with pytest.raises(BadInput, match=rf"val.jsonl, line 2 has no '{label}'"):
        list(read)


def test_the_first_question_of_test_says_whether_it_has_labels(tmp_path):
    labelled, bare = question(0, "val", 3), question(1, "test", 0)
    mixed = questions(tmp_path, labelled, bare, split="test")
    assert (mixed.labelled, mixed[0].answer_label) == (True, 3)
    with pytest.raises(BadInput, match=r"test.jsonl, line 2 has no 'answer_label'"):
        mixed[1]
    unlabelled = questions(tmp_path, bare, labelled, split="test")
    assert not unlabelled.labelled
    assert [q.answer_label for q in unlabelled] == [None, None]


def test_a_question_that_comes_twice_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"val.jsonl, line 2: an earlier question also has the annot_id 'val-0'"):
        list(questions(tmp_path, question(0, "val", 0), question(0, "val", 1)))


def test_a_file_without_questions_is_refused(tmp_path):
    (tmp_path / "val.jsonl").write_text("\r\n \n")
    with pytest.raises(BadInput, match=r"val.jsonl holds no question"):
        Questions(tmp_path, "val")
