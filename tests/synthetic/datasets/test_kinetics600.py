import csv
import re
from collections import Counter
from pathlib import Path

import pytest

from reserve.data.decode import choose_file_decoder
from reserve.synthetic.datasets import kinetics600
from reserve.synthetic.datasets.wording import SOUNDING


@pytest.fixture(scope="module")
def folder(task_data_sets) -> Path:
    return task_data_sets / "kinetics600"


def rows(folder: Path, split: str) -> list[dict]:
    with (folder / f"kinetics-600_{split}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def clip_path(folder: Path, row: dict) -> Path:
    start, end = int(row["time_start"]), int(row["time_end"])
    return folder / row["split"] / row["label"] / f"{row['youtube_id']}_{start:06d}_{end:06d}.mp4"


def test_columns_and_values_are_like_the_genuine_ones(folder, shared_dir):
    sample = (shared_dir / "realdata/annotations/kinetics600/kinetics-600_val.sample.csv").read_text().splitlines()
    for split in ("train", "val", "test"):
        lines = (folder / f"kinetics-600_{split}.csv").read_text().splitlines()
        assert lines[0] == sample[0]
        form = r"[^,]+,[\w-]{11},\d+,\d+,"
        assert all(re.fullmatch(form + "val", line) for line in sample[1:])
        assert all(re.fullmatch(form + split, line) for line in lines[1:])


def test_clips_last_ten_seconds_and_mostly_show_what_their_label_says(folder, stories):
    for split, count in (("train", 12), ("val", 6), ("test", 6)):
        found = rows(folder, split)
        assert len(found) == count
        for number, row in enumerate(found, 1):
            start, end = int(row["time_start"]), int(row["time_end"])
            assert end - start == 10
            video = getattr(stories, split if split == "train" else "heldout")[int(row["youtube_id"][-4:])]
            seen: Counter[str] = Counter()
            for timed in video.scenes:
                seen[timed.scene.shape] += max(0, min(end, timed.end) - max(start, timed.start))
            verb, shape = row["label"].split()
            assert (SOUNDING[shape], max(seen, key=seen.get)) == (verb, shape)
            assert seen[shape] > 5
            with choose_file_decoder().open(clip_path(folder, row)) as media:
                assert len(list(media.frames([0.0, 5.0, 9.9]))) == 3
                assert len(media.info.audio) == (number < count), "only the last clip is silent"


def test_held_out_clips_have_labels_of_the_training_split(folder):
    known = {row["label"] for row in rows(folder, "train")}
    assert len(known) >= 5
    assert {row["label"] for split in ("val", "test") for row in rows(folder, split)} <= known


def test_a_scene_has_one_clip_at_most(short_stories, tmp_path):
    assert kinetics600.write(short_stories, tmp_path, questions=99, seed=0)["train clips"] == 3
    assert len({tuple(row.values()) for row in rows(tmp_path, "train")}) == 3
