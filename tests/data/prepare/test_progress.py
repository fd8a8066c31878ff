"""The lines that a preparation prints."""

from __future__ import annotations

from pathlib import Path

from reserve.data.prepare.progress import preparation_progress
from reserve.data.prepare.videos import FileResult


def test_warnings_about_a_used_video_are_printed_like_skipped_ones(capsys):
    with preparation_progress() as show:
        show(FileResult("a", Path("a.mp4"), "prepared", warnings=("a.en.vtt: no words in it",)), 2)
        show(FileResult("b", Path("b.mp4"), "skipped", reason="no audio track"), 2)
    assert capsys.readouterr().err.splitlines() == [
        "a.mp4: a.en.vtt: no words in it",
        "skipped b.mp4: no audio track",
        "videos: 1 prepared, 0 unchanged, 1 skipped",
    ]
