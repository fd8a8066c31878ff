"""Subtitles: read as they are, assigned to segments and cleaned."""

from __future__ import annotations

import json

import numpy as np
import pytest

from reserve.data.types import Cue
from reserve.errors import BadInput
from reserve.tasks.tvqa.subtitles import SubtitleLines, clean_text, read_srt, segment_texts

SRT = """1
00:00:01,000 --> 00:00:02,500
(Sheldon:) Good <i>morning</i>,
Leonard.

2
00:00:03,000 --> 00:00:04,000
- Yes?
"""


def test_clean_text_is_the_references(shared_dir):
    with np.load(shared_dir / "golden" / "tvqa_prep.npz") as golden:
        cases = list(zip(golden["clean/in"].tolist(), golden["clean/out"].tolist(), strict=True))

    assert [clean_text(text) for text, _ in cases] == [cleaned for _, cleaned in cases]


def test_srt_text_is_kept_as_it_is(tmp_path):
    path = tmp_path / "clip.srt"
    path.write_text("\ufeff" + SRT.replace("\n", "\r\n"), "utf-8")

    cues = read_srt(path)

    assert cues == [Cue(1.0, 2.5, ("(Sheldon:) Good <i>morning</i>,", "Leonard.")), Cue(3.0, 4.0, ("- Yes?",))]


def test_an_srt_file_in_another_encoding_is_read(tmp_path):
    path = tmp_path / "clip.srt"
    path.write_bytes(SRT.replace("morning", "café").encode("cp1252"))

    assert "café" in read_srt(path)[0].lines[0]


def test_an_empty_srt_file_has_no_cues(tmp_path):
    path = tmp_path / "clip.srt"
    for content in ("", "\n \n"):
        path.write_text(content)
        assert read_srt(path) == []


def test_a_broken_srt_file_is_named(tmp_path):
    path = tmp_path / "clip.srt"
    path.write_text("no subtitles at all")

    with pytest.raises(BadInput, match=r"clip\.srt: not SRT"):
        read_srt(path)


def test_texts_of_a_segment_are_joined_and_cleaned():
    cues = [Cue(0, 1, ("One,", "two")), Cue(1, 2, ("“three”",)), Cue(5, 7, ("four",)), Cue(50, 60, ("never",))]

    texts = segment_texts(cues, np.array([[-0.5, 4.0], [4.0, 8.0], [8.0, 12.0]]))

    assert texts == ['One, two "three"', "four", ""]


def test_subtitles_of_a_json_lines_file(tmp_path):
    path = tmp_path / "subtitles.jsonl"
    sub = [{"text": "Hi there", "start": 0.5, "end": 2.0}]
    lines = [{"vid_name": "a", "sub": []}, {"vid_name": "é", "sub": sub}]
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n", "utf-8")

    subtitles = SubtitleLines(path)

    assert "a" in subtitles
    assert "b" not in subtitles
    assert subtitles.read("a") == []
    assert subtitles.read("é") == [Cue(0.5, 2.0, ("Hi there",))]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"vid_name": "a", "sub": [{"text": "x", "start": 0}]}', "line 1, subtitle 1 has no 'end'"),
        ('{"vid_name": "a"}', "line 1 has no 'sub'"),
    ],
)
def test_a_bad_line_of_subtitles_is_named(tmp_path, line, message):
    path = tmp_path / "subtitles.jsonl"
    path.write_text(line + "\n")

    with pytest.raises(BadInput, match=message):
        SubtitleLines(path).read("a")


def test_a_line_that_is_not_json_is_named(tmp_path):
    path = tmp_path / "subtitles.jsonl"
    path.write_text('{"vid_name": "a", "sub": []}\nnothing\n')

    with pytest.raises(BadInput, match="line 2 is not JSON"):
        SubtitleLines(path)


def test_the_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ftfy", None)

    with pytest.raises(ImportError, match=r"merlot-reserve\[tasks\]"):
        clean_text("x")
