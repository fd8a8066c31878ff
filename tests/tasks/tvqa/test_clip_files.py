"""Where a clip's files lie, and which clips lack something."""

from __future__ import annotations

import pytest

from reserve.errors import BadInput
from reserve.tasks.tvqa.annotations import Question, Questions
from reserve.tasks.tvqa.clip_files import ClipFiles


def question(show="castle", vid_name="castle_s01e01_seg01_clip_00"):
    return Question(1, vid_name, show, (0.0, 1.0), "", ("",) * 5, 0, "a test")


def test_paths_follow_the_release(tmp_path):
    files, bbt = ClipFiles(tmp_path), question("bbt", "s01e01_seg01_clip_00")

    assert files.frames_folder(question()) == (
        tmp_path / "tvqa_frames/frames_hq/castle_frames/castle_s01e01_seg01_clip_00"
    )
    assert files.audio(question()) == tmp_path / "audios/castle/castle_audios/castle_s01e01_seg01_clip_00.mp3"
    assert files.audio(bbt) == tmp_path / "audios/bbt_new/bbt_audios/s01e01_seg01_clip_00.mp3"
    assert files.frames_folder(bbt) == tmp_path / "tvqa_frames/frames_hq/bbt_frames/s01e01_seg01_clip_00"
    assert files.subtitles(bbt) == tmp_path / "tvqa_subtitles/s01e01_seg01_clip_00.srt"


def test_pictures_go_by_number(tmp_path):
    folder = ClipFiles(tmp_path).frames_folder(question())
    folder.mkdir(parents=True)
    for name in ("00001.jpg", "00012.jpg", "00000.jpg", "thumbs.db", "00003.png"):
        (folder / name).write_bytes(b"x")

    assert ClipFiles(tmp_path).frame_paths(question()) == {1: folder / "00001.jpg", 12: folder / "00012.jpg"}


def test_an_absent_folder_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"castle_s01e01_seg01_clip_00: cannot be opened: No such file"):
        ClipFiles(tmp_path).frame_paths(question())


def test_a_complete_folder_lacks_nothing(tvqa_folder):
    missing = ClipFiles(tvqa_folder).missing(Questions(tvqa_folder, "train"))

    assert missing.clips == 4
    assert missing.clips_without == frozenset()
    assert missing.reasons() == []
    assert missing.counts()[0] == "clips with pictures: 4 of 4"


def test_an_empty_folder_lacks_everything(tmp_path):
    questions = [question(), question(), question("met", "met_s01e01_seg01_clip_00")]

    missing = ClipFiles(tmp_path).missing(questions)

    assert missing.clips == 2
    assert missing.clips_without == {"castle_s01e01_seg01_clip_00", "met_s01e01_seg01_clip_00"}
    assert [line.split(" (")[0] for line in missing.reasons()] == [
        "2 of 2 clips have no pictures",
        "2 of 2 clips have no sound",
        "2 of 2 clips have no subtitles",
    ]
