"""Kinetics-600's annotations: a genuine sample, the classes, and the clips on disk."""

from __future__ import annotations

import shutil

import pytest

from reserve.errors import BadInput
from reserve.tasks.kinetics600.annotations import Clip, find_clips, label_table, read_clips, usable_clips
from tests.helpers.kinetics_folder import write_rows


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def test_genuine_annotations_are_read(shared_dir, tmp_path):
    sample = shared_dir / "realdata" / "annotations" / "kinetics600" / "kinetics-600_val.sample.csv"
    shutil.copy(sample, tmp_path / "kinetics-600_val.csv")

    clips = read_clips(tmp_path, "val")

    assert clips[0] == Clip("0wR5jVB-WPk_000417_000427", "abseiling")
    assert "acting in play" in {clip.label for clip in clips}


@pytest.mark.parametrize(
    "name", ["kinetics-600_train.csv", "kinetics600_train.csv", "train.csv", "annotations/train.csv"]
)
def test_annotation_files_have_several_names(tmp_path, name):
    write_rows(tmp_path / name, [("b", "x", 0, 10, "train"), ("a", "y", 3.0, 13.0, "train"), ("b", "z", 1, 2, "train")])

    assert label_table(tmp_path) == ["a", "b"]
    assert read_clips(tmp_path, "train")[1].name == "y_000003_000013"


def test_a_file_decides_the_classes(tmp_path):
    (tmp_path / "labels.txt").write_text("zumba\n\nabseiling \n")

    assert label_table(tmp_path) == ["zumba", "abseiling"]

    (tmp_path / "labels.txt").write_text("zumba\nzumba\n")
    with pytest.raises(BadInput, match=r"labels\.txt has the label 'zumba' more than once"):
        label_table(tmp_path)

    (tmp_path / "labels.txt").write_text("\n \n")
    with pytest.raises(BadInput, match=r"labels\.txt holds no label"):
        label_table(tmp_path)


def test_space_around_a_label_does_not_count(tmp_path):
    write_rows(tmp_path / "train.csv", [(" a b ", "x", 0, 10, "train"), ("a b", "y", 0, 10, "train")])

    assert label_table(tmp_path) == ["a b"]


def test_the_test_split_may_lack_labels(tmp_path):
    (tmp_path / "test.csv").write_text("youtube_id,time_start,time_end,split\nabc,1,11,test\n")

    assert read_clips(tmp_path, "test") == [Clip("abc_000001_000011", None)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("a", "../x", 0, 10, "train"), "line 2: 'youtube_id' must be"),
        (("a", "x", "soon", 10, "train"), "line 2: 'time_start' must be a finite number"),
        (("a", "x", -1, 10, "train"), "line 2: 'time_start' must be at least 0"),
        (("", "x", 0, 10, "train"), "line 2 has no 'label'"),
    ],
)
def test_bad_rows_are_named(tmp_path, row, message):
    write_rows(tmp_path / "train.csv", [row])

    with pytest.raises(BadInput, match=message):
        read_clips(tmp_path, "train")


def test_missing_annotations_are_named_with_their_source(tmp_path):
    with pytest.raises(BadInput, match=r"none of kinetics-600_val\.csv, .*cvdfoundation/kinetics-dataset"):
        read_clips(tmp_path, "val")


def test_clips_lie_flat_or_by_label(tmp_path):
    for name in ("val/a_000001_000011.mp4", "val/acting in play/b_000001_000011.mkv", "val/other/notes.txt"):
        touch(tmp_path / name)
    # Of two files of one clip, mp4 comes first.
    touch(tmp_path / "val/acting in play/a_000001_000011.webm")

    assert find_clips(tmp_path, "val") == {
        "a_000001_000011": tmp_path / "val/a_000001_000011.mp4",
        "b_000001_000011": tmp_path / "val/acting in play/b_000001_000011.mkv",
    }
    assert find_clips(tmp_path, "train") == {}


def test_missing_clips_and_unknown_labels_are_counted(tmp_path):
    rows = [("a", "one", 0, 10, "val"), ("b", "two", 0, 10, "val"), ("c", "three", 0, 10, "val")]
    write_rows(tmp_path / "val.csv", rows)
    for name in ("one", "three"):
        touch(tmp_path / f"val/{name}_000000_000010.mp4")

    clips = usable_clips(tmp_path, "val", ["a", "b"])

    assert clips.names == ["one_000000_000010"]
    assert clips.labels == [0]
    missing, unknown = clips.notes
    assert "1 of 3 clips of the split val are missing" in missing
    assert "two_000000_000010" in missing
    assert "1 of 3 clips of the split val have labels that are not among the 2 classes (c)" in unknown


def test_a_split_without_clips_is_refused(tmp_path):
    write_rows(tmp_path / "val.csv", [("a", "one", 0, 10, "val")])

    with pytest.raises(BadInput, match="no clip of the split val that can be used: 1 of 1 clips"):
        usable_clips(tmp_path, "val", ["a"])
