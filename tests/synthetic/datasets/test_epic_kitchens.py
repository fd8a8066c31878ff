import ast
import csv
import re
from pathlib import Path

import pytest

from reserve.data.decode import choose_file_decoder
from reserve.synthetic.datasets.scenes import TimedScene
from tests.helpers.scene_truth import holds

FORMS = {
    "narration_id": r"P\d\d_\d\d+_\d+",
    "participant_id": r"P\d\d",
    "video_id": r"P\d\d_\d\d+",
    "narration_timestamp": r"\d\d:\d\d:\d\d\.\d{3}",
    "start_timestamp": r"\d\d:\d\d:\d\d\.\d\d",
    "stop_timestamp": r"\d\d:\d\d:\d\d\.\d\d",
    "start_frame": r"[1-9]\d*",
    "stop_frame": r"[1-9]\d*",
    "narration": r".+",
    "verb": r"[a-z-]+",
    "verb_class": r"\d+",
    "noun": r"[a-z:/ ]+",
    "noun_class": r"\d+",
    "all_nouns": r"\['.+'\]",
    "all_noun_classes": r"\[\d+.*\]",
}


@pytest.fixture(scope="module")
def folder(task_data_sets) -> Path:
    return task_data_sets / "epic-kitchens"


def table(path: Path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def seconds(timestamp: str) -> float:
    hours, minutes, rest = timestamp.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


def scene_at_start(row: dict, stories) -> tuple[TimedScene, float]:
    """The scene on screen when an action begins, and the second of the synthetic video where the row's own begins."""
    scenes = stories.heldout[int(row["video_id"].split("_")[1]) - 1].scenes
    begin = 0.0 if row["participant_id"] == "P01" else scenes[len(scenes) // 2].start
    start = begin + seconds(row["start_timestamp"])
    return next(timed for timed in scenes if timed.start <= start < timed.end), begin


@pytest.mark.parametrize(
    "name",
    [
        "EPIC_100_validation.csv", "EPIC_100_verb_classes.csv", "EPIC_100_noun_classes.csv", "EPIC_100_tail_verbs.csv",
        "EPIC_100_tail_nouns.csv", "EPIC_100_unseen_participant_ids_validation.csv", "actions.csv",
    ],
)  # fmt: skip
def test_columns_are_those_of_the_genuine_files(folder, shared_dir, name):
    genuine = table(shared_dir / "realdata/annotations/ek100" / name)
    made = table(folder / name)
    assert made
    assert list(made[0]) == list(genuine[0])
    if name != "EPIC_100_validation.csv":
        for column in ("id", "verb", "noun"):
            if column in genuine[0]:
                assert all(row[column].isdecimal() for row in (*genuine, *made))
    if "classes" in name:
        assert all(row["key"] in ast.literal_eval(row["instances"]) for row in made)


def test_values_have_the_form_of_the_genuine_ones(folder, shared_dir):
    genuine = table(shared_dir / "realdata/annotations/ek100/EPIC_100_validation.csv")[:200]
    for row in (*genuine, *table(folder / "EPIC_100_validation.csv")):
        for column, form in FORMS.items():
            assert re.fullmatch(form, row[column]), (column, row[column])


def test_actions_name_what_goes_on_in_a_scene_already_seen(folder, stories):
    rows = table(folder / "EPIC_100_validation.csv")
    assert len(rows) == 6
    verbs, nouns = (
        {row["id"]: row["key"] for row in table(folder / f"EPIC_100_{k}_classes.csv")} for k in ("verb", "noun")
    )
    actions = {(row["verb"], row["noun"]): row["action"] for row in table(folder / "actions.csv")}
    assert len(set(actions.values())) == len(actions) == len(verbs) * len(nouns)
    for row in rows:
        timed, begin = scene_at_start(row, stories)
        assert begin + seconds(row["start_timestamp"]) - timed.start > 3, "seen for two seconds before it"
        assert timed.end >= begin + seconds(row["stop_timestamp"])
        assert (verbs[row["verb_class"]], nouns[row["noun_class"]]) == (row["verb"], row["noun"])
        action = actions[row["verb_class"], row["noun_class"]]
        assert action == f"{row['verb']} {row['noun']}"
        assert holds(action.replace("-", " ").replace(":", " "), timed.scene)
        assert holds(row["narration"], timed.scene)
        assert ast.literal_eval(row["all_nouns"]) == [row["noun"]]
        assert ast.literal_eval(row["all_noun_classes"]) == [int(row["noun_class"])]
    assert any(":" in noun for noun in nouns.values())


def test_videos_have_the_actions(folder, stories):
    for row in table(folder / "EPIC_100_validation.csv"):
        path = folder / row["participant_id"] / "videos" / f"{row['video_id']}.MP4"
        with choose_file_decoder().open(path) as media:
            sound = media.soundtrack()
            assert sound.media_end > seconds(row["stop_timestamp"]) - 0.1
            assert next(media.frames([seconds(row["start_timestamp"])])).shape == (192, 320, 3)


def test_each_group_that_is_scored_apart_is_there(folder):
    rows = table(folder / "EPIC_100_validation.csv")
    unseen = {row["participant_id"] for row in table(folder / "EPIC_100_unseen_participant_ids_validation.csv")}
    assert {row["participant_id"] in unseen for row in rows} == {True, False}
    for kind in ("verb", "noun"):
        tail = {row[kind] for row in table(folder / f"EPIC_100_tail_{kind}s.csv")}
        assert {row[f"{kind}_class"] in tail for row in rows} == {True, False}


def test_the_test_split_has_times_only(folder):
    rows = table(folder / "EPIC_100_test_timestamps.csv")
    assert len(rows) == 6
    assert list(rows[0]) == list(FORMS)[:8]
