from __future__ import annotations

import json

import pytest

from reserve.errors import BadInput
from reserve.tasks.data_folder import JsonLines, Record
from reserve.tasks.vcr.annotations import check_references, read_objects, read_question
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
        ({"boxes": [[1, 2, 3, 4]]}, "'boxes' must have x1, y1, x2, y2 for each of the 2 names"),
        ({"boxes": [[1, 2, 3], [1, 2, 3]]}, "'boxes' must have"),
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
