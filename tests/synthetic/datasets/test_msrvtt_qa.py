import json
import re
from collections import Counter
from pathlib import Path

import pytest

from reserve.data.decode import choose_file_decoder
from reserve.synthetic.datasets import msrvtt_qa
from reserve.synthetic.story import ROUTE
from tests.helpers.scene_truth import holds, mentioned
from tests.helpers.value_types import types_of

FIRST = {"train": 0, "val": 6513, "test": 7010}


@pytest.fixture(scope="module")
def folder(task_data_sets) -> Path:
    return task_data_sets / "msrvtt-qa"


def records(folder: Path, split: str) -> list[dict]:
    return json.loads((folder / f"{split}_qa.json").read_text())


def test_fields_are_those_of_the_genuine_sample(folder, shared_dir):
    genuine = json.loads((shared_dir / "realdata/annotations/msrvtt_qa/val_qa.head.json").read_text())
    made = [record for split in FIRST for record in records(folder, split)]
    assert {types_of(record) for record in made} == {types_of(record) for record in genuine}
    assert list(made[0]) == list(genuine[0])
    assert all(" " not in record["answer"] for record in (*made, *genuine))
    assert len({record["id"] for record in made}) == len(made)


def test_categories_have_the_form_of_the_genuine_ones(folder, shared_dir):
    for path in (shared_dir / "realdata/annotations/msrvtt_qa/category.txt", folder / "category.txt"):
        lines = path.read_bytes().decode().split("\r\n")
        assert [re.fullmatch(r"[\w/ ]+\t(\d+)", line)[1] for line in lines if line] == [
            str(number) for number in range(len(lines) - (lines[-1] == ""))
        ]
    assert (folder / "readme.txt").read_text()


def test_videos_are_numbered_from_where_their_split_begins(folder):
    for split, first in FIRST.items():
        numbers = sorted({record["video_id"] for record in records(folder, split)})
        assert numbers == list(range(first, first + len(numbers)))
        for number in numbers:
            with choose_file_decoder().open(folder / "video" / f"video{number}.mp4") as media:
                assert 4 < media.soundtrack().media_end < 27, "one to eight segments of 3 s"
                assert next(media.frames([1.0])).shape == (192, 320, 3)


def test_answers_hold_of_a_scene(folder, stories):
    statements = json.loads((folder / "statements.json").read_text())
    for split in FIRST:
        scenes = [timed.scene for story in stories.splits()[split] for timed in story.scenes]
        for record in records(folder, split):
            assert 0 <= record["category_id"] < len(ROUTE)
            statement = statements[str(record["id"])]
            assert statement.count("_") == 1
            filled = statement.replace("_", record["answer"])
            place = ROUTE[record["category_id"]]
            assert sum(holds(filled, scene) and scene.place == place for scene in scenes) >= 1
            asked = {word for values in mentioned(record["question"]).values() for word in values}
            assert asked, "a question names what it is about"


def test_many_questions_are_spread_over_all_scenes(short_stories, tmp_path):
    assert msrvtt_qa.write(short_stories, tmp_path, questions=7, seed=0)["val questions"] == 7
    asked = Counter(record["video_id"] for record in records(tmp_path, "val"))
    assert sorted(asked.values()) == [2, 2, 3]
    assert msrvtt_qa.write(short_stories, tmp_path, questions=999, seed=0)["val questions"] == 3 * 4
