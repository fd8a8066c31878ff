"""Captions through PyAV."""

from __future__ import annotations

import pytest

from reserve.data.decode.pyav import PyAVDecoder, text
from reserve.errors import BadInput
from tests.helpers.media_files import write_media


def cues_of(path):
    with PyAVDecoder().open(path) as media:
        return media.cues(0)


def test_spaces_and_line_ends_as_ass_writes_them(tmp_path):
    path = write_media(tmp_path / "a.mp4", frame_times=[0], cues=[(1, 2, r"hello\hthere\N\h\hmy\nfriend")])
    assert [cue.lines for cue in cues_of(path)] == [("hello there", "  my friend")]


def test_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "_MAX_CUES", 2)
    path = write_media(tmp_path / "a.mp4", frame_times=[0], cues=[(i, i + 1, "word") for i in range(3)])
    with pytest.raises(BadInput, match="more than 2 cues"):
        cues_of(path)
