import json
import re
from collections import Counter
from pathlib import Path

import pytest

from reserve.synthetic.datasets import make_data_set
from reserve.synthetic.datasets.scenes import TimedScene
from reserve.synthetic.story import ROUTE, SHAPES
from tests.helpers.scene_truth import holds, mentioned
from tests.helpers.value_types import types_of

TYPES = ("Interaction", "Sequence", "Prediction", "Feasibility")


@pytest.fixture(scope="module")
def folder(narrated_videos, tmp_path_factory) -> Path:
    """More questions than other tests have, since those of a type differ."""
    out = tmp_path_factory.mktemp("star")
    make_data_set("star", narrated_videos, out, questions=40)
    return out


def records(folder: Path, split: str) -> list[dict]:
    return json.loads((folder / f"STAR_{split}.json").read_text())


def of_type(folder: Path, kind: str) -> list[dict]:
    return [record for split in ("train", "val") for record in records(folder, split) if kind in record["question_id"]]


def stretch(record: dict, stories) -> tuple[list[TimedScene], list[TimedScene]]:
    """The scenes that a question is about, and all of its video."""
    split = {"T": "train", "H": "heldout"}[record["video_id"][0]]
    scenes = getattr(stories, split)[int(record["video_id"][1:])].scenes
    return [timed for timed in scenes if record["start"] <= timed.start and timed.end <= record["end"]], list(scenes)


def right_and_wrong(record: dict) -> tuple[str, list[str]]:
    texts = [choice["choice"] for choice in record["choices"]]
    assert texts.count(record["answer"]) == 1
    assert len(set(texts)) == 4
    return record["answer"], [text for text in texts if text != record["answer"]]


def test_fields_are_those_of_the_genuine_sample(folder, shared_dir):
    (sample,) = json.loads((shared_dir / "realdata/annotations/star/STAR_val.sample.json").read_text())
    for split in ("train", "val", "test"):
        for record in records(folder, split):
            assert isinstance(record.pop("question_program"), list)  # left out of the sample
            assert isinstance(record.pop("situations"), dict)
            expected = {name: value for name, value in sample.items() if split != "test" or name != "answer"}
            assert types_of(record) == types_of(expected)


def test_ids_videos_and_times_have_the_form_of_the_data_set(folder, narrated_videos, stories):
    for split in ("train", "val", "test"):
        found = records(folder, split)
        assert len({record["question_id"] for record in found}) == len(found)
        assert Counter(record["question_id"].split("_")[0] for record in found) == dict.fromkeys(TYPES, len(found) // 4)
        for record in found:
            assert re.fullmatch(rf"({'|'.join(TYPES)})_T\d_\d+", record["question_id"])
            assert re.fullmatch(r"[A-Z0-9]{5}", record["video_id"])
            scenes, _ = stretch(record, stories)
            assert (record["start"], record["end"]) == (scenes[0].start, scenes[-1].end)
            assert [choice["choice_id"] for choice in record["choices"]] == [0, 1, 2, 3]
    video = folder / "Charades_v1_480" / "T0001.mp4"
    assert video.read_bytes() == (narrated_videos / "train" / "story-0001.mp4").read_bytes()


def test_interaction_asks_for_what_is_seen(folder, stories):
    kinds = set()
    for record in of_type(folder, "Interaction"):
        (timed,), _ = stretch(record, stories)
        right, wrong = right_and_wrong(record)
        kinds.add(record["question_id"].split("_")[1])
        assert holds(right, timed.scene)
        assert not any(holds(text, timed.scene) for text in wrong)
    assert kinds == {"T1", "T2"}


def test_sequence_asks_for_the_neighbour_in_time(folder, stories):
    kinds = set()
    asked, neighbours = of_type(folder, "Sequence"), 0
    for record in asked:
        scenes, _ = stretch(record, stories)
        known, step = scenes[1].scene, {"T1": 1, "T2": -1}[record["question_id"].split("_")[1]]
        kinds.add(step)
        assert ("after" if step > 0 else "before") in record["question"]
        assert mentioned(record["question"])["shape"] == {known.shape}
        right, wrong = right_and_wrong(record)
        assert holds(right, scenes[1 + step].scene)
        neighbours += any(holds(text, scenes[1 - step].scene, of=("shape",)) for text in wrong)
        assert all(not holds(text, scenes[1 + step].scene, of=("shape",)) for text in wrong)
    assert kinds == {1, -1}
    assert neighbours > 0.6 * len(asked), "most offer the neighbour on the other side"


def test_prediction_asks_for_the_place_that_comes_next(folder, stories):
    checked = 0
    for record in of_type(folder, "Prediction"):
        scenes, video = stretch(record, stories)
        right, wrong = right_and_wrong(record)
        after = video.index(scenes[-1]) + 1
        if after < len(video):
            checked += 1
            assert holds(right, video[after].scene)
            assert not any(holds(text, video[after].scene) for text in wrong)
    assert checked > 10


def test_feasibility_asks_for_a_place_within_reach(folder, stories):
    for record in of_type(folder, "Feasibility"):
        (timed,), _ = stretch(record, stories)
        right, wrong = right_and_wrong(record)
        here = ROUTE.index(timed.scene.place)
        near = {ROUTE[here - 1], ROUTE[(here + 1) % len(ROUTE)]}
        assert mentioned(right)["place"] <= near
        assert not any(mentioned(text)["place"] & near for text in wrong)


def test_right_choices_are_balanced_over_positions(folder):
    found = records(folder, "train")
    places = Counter(
        next(choice["choice_id"] for choice in record["choices"] if choice["choice"] == record["answer"])
        for record in found
    )
    assert set(places.values()) == {len(found) // 4}


def test_choices_of_things_agree_in_number(folder):
    for record in of_type(folder, "Sequence"):
        texts = [choice["choice"].removeprefix("The ").removesuffix(".") for choice in record["choices"]]
        assert len({text in SHAPES for text in texts}) == 1
