import json
import random
import re
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from reserve.data.images import decode_jpeg
from reserve.synthetic.datasets import make_data_set
from reserve.synthetic.story import COLOURS, Scene, is_held_out
from tests.helpers.scene_truth import holds, mentioned
from tests.helpers.value_types import types_of

UNLABELLED = {
    "answer_label", "rationale_label", "answer_orig", "question_orig", "rationale_orig", "answer_sources",
    "rationale_sources", "answer_match_iter", "rationale_match_iter",
}  # fmt: skip
holds = partial(holds, of=("colour", "place", "motion"))


@pytest.fixture(scope="module")
def folder(task_data_sets) -> Path:
    return task_data_sets / "vcr"


def records(folder: Path, split: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]


def metadata(folder: Path, record: dict) -> dict:
    return json.loads((folder / "vcr1images" / record["metadata_fn"]).read_text())


def text(tokens: list) -> str:
    return " ".join(token for token in tokens if isinstance(token, str))


def pointed_at(tokens: list) -> list[int]:
    return next(token for token in tokens if isinstance(token, list))


def scene_of(record: dict, stories) -> Scene:
    """The scene that a question is about: a scene of the picture's video whose things are as many and as shaped."""
    tag = pointed_at(record["question"])
    split, index = re.fullmatch(r"(TRAIN|HELDOUT)_STORY_(\d+)", record["movie"]).groups()
    story = getattr(stories, split.lower())[int(index)]
    times = re.search(r"_(\d\d)\.(\d\d)\.([\d.]+)-(\d\d)\.(\d\d)\.([\d.]+)@", record["img_fn"]).groups()
    start, end = int(times[1]) * 60 + float(times[2]), int(times[4]) * 60 + float(times[5])
    shape = record["objects"][tag[0]]
    ends = {start: [], end: []}
    for timed in story.scenes:
        if timed.scene.shape == shape and timed.scene.count == len(tag):
            if round(timed.start, 3) == start:
                ends[start].append(timed.scene)
            elif round(timed.end, 3) == end:
                ends[end].append(timed.scene)
    (scene,) = ends[start] + ends[end]
    return scene


def test_fields_are_those_of_the_genuine_sample(folder, shared_dir):
    sample = json.loads((shared_dir / "realdata/annotations/vcr/train.sample.jsonl").read_text())
    for split in ("train", "val", "test"):
        for record in records(folder, split):
            expected = {name for name in sample if split != "test" or name not in UNLABELLED}
            assert list(record) == [name for name in sample if name in expected]
            for name in expected - {"interesting_scores", "question", "answer_choices", "rationale_choices"}:
                assert types_of(record[name]) == types_of(sample[name]), name
            assert types_of([record["question"]]) <= frozenset({frozenset({"str", frozenset({"int"})})})
            assert types_of(record["interesting_scores"]) == frozenset({"int"})
            for name in ("answer_choices", "rationale_choices"):
                assert types_of(record[name]) == frozenset({frozenset({"str", frozenset({"int"})})})


def test_pictures_have_boxes_around_their_things(folder, stories):
    pictures = {record["img_fn"]: record for split in ("train", "val", "test") for record in records(folder, split)}
    widths = set()
    for name, record in pictures.items():
        image = decode_jpeg((folder / "vcr1images" / name).read_bytes()).astype(int)
        found = metadata(folder, record)
        assert (found["height"], found["width"]) == image.shape[:2]
        widths.add(found["width"])
        assert found["names"] == record["objects"]
        assert len(found["boxes"]) == len(found["segms"]) == len(found["names"])
        tag = pointed_at(record["question"])
        colour = np.array(COLOURS[scene_of(record, stories).colour])
        for index in tag:
            x1, y1, x2, y2, score = found["boxes"][index]
            assert 0 < score <= 1
            assert 0 <= x1 < x2 <= found["width"]
            assert 0 <= y1 < y2 <= found["height"]
            inside = image[round(y1) : round(y2), round(x1) : round(x2)]
            assert (np.abs(inside - colour).max(axis=-1) < 40).mean() > 0.1
            corners = np.array(found["segms"][index][0])
            assert np.allclose([*corners.min(axis=0), *corners.max(axis=0)], [x1, y1, x2, y2], atol=0.02)
    assert widths == {320, 640}  # one scene, and two side by side


def test_only_the_right_choices_hold(folder, stories):
    for split in ("train", "val"):
        for record in records(folder, split):
            scene = scene_of(record, stories)
            assert all(pointed_at(choice) == pointed_at(record["question"]) for choice in record["answer_choices"])
            for kind in ("answer", "rationale"):
                truths = [holds(text(choice), scene) for choice in record[f"{kind}_choices"]]
                assert truths == [number == record[f"{kind}_label"] for number in range(4)]
                assert record[f"{kind}_match_iter"][record[f"{kind}_label"]] == 0
                assert sorted(record[f"{kind}_match_iter"]) == [0, 1, 2, 3]
            assert len({json.dumps(choice) for choice in record["answer_choices"]}) == 4


def test_no_choice_names_a_pair_that_training_never_shows(folder, stories):
    """A model without the picture could learn from training to reject those."""
    for split in ("train", "val"):
        for record in records(folder, split):
            shape = scene_of(record, stories).shape
            for choice in (*record["answer_choices"], *record["rationale_choices"]):
                assert not any(is_held_out(colour, shape) for colour in mentioned(text(choice))["colour"])


def test_right_choices_are_balanced_over_positions(folder):
    for kind in ("answer", "rationale"):
        assert set(Counter(record[f"{kind}_label"] for record in records(folder, "train")).values()) == {3}


def test_originals_number_objects_from_one(folder):
    for record in records(folder, "train"):
        numbers = " and ".join(str(index + 1) for index in pointed_at(record["question"]))
        words = [numbers if isinstance(token, list) else token for token in record["question"]]
        assert record["question_orig"] == " ".join(words[:-1]) + "?"


def test_ids_count_questions_and_pictures(folder):
    for split in ("train", "val", "test"):
        found = records(folder, split)
        assert [record["annot_id"] for record in found] == [f"{split}-{number}" for number in range(len(found))]
        assert len({record["img_id"] for record in found}) == len({record["img_fn"] for record in found})
        assert [record["question_number"] for record in found[:4]] == [0, 1, 0, 1]


def test_an_odd_number_of_questions_is_met(narrated_videos, tmp_path):
    assert make_data_set("vcr", narrated_videos, tmp_path, questions=3)["train questions"] == 6
    assert len(records(tmp_path, "train")) == 6


def test_two_things_of_one_look_are_not_put_side_by_side(stories):
    from reserve.synthetic.datasets.vcr import _pictures

    pictures = _pictures(stories.train[0], "train", random.Random(0))
    pairs = [picture.scenes for picture in (next(pictures) for _ in range(60)) if len(picture.scenes) == 2]
    assert len(pairs) >= 25
    for one, other in pairs:
        for attribute in ("shape", "colour", "motion", "place"):
            assert getattr(one.scene, attribute) != getattr(other.scene, attribute)
