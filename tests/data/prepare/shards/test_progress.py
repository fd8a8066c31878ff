"""What is printed while shards are prepared."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from reserve.data.prepare.shards import progress
from reserve.data.prepare.shards.events import Event
from reserve.data.prepare.shards.outcomes import category
from reserve.data.prepare.shards.progress import shard_progress
from reserve.data.shards.records import SkippedFile, VideoRecord

GOOD = VideoRecord("a.mp4", "a.mp4", "k", 2, 20, 12.0, warnings=("a.en.vtt: no words in it",))


def skipped(reason, filter=""):
    return SkippedFile("b.mp4", "b.mp4", "k", reason, filter=filter)


def test_skipped_files_warnings_and_waits_are_lines(capsys, monkeypatch):
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: 0.0))
    with shard_progress() as show:
        show(Event(0, "started"), 3)
        show(Event(0, "video", path="/v/a.mp4", outcome=GOOD), 3)
        show(Event(0, "video", path="/v/b.mp4", outcome=skipped("too short: 3 s")), 3)
        show(Event(0, "video", path="/v/\x1b[2J.mp4", outcome=skipped("no\nvideo")), 3)
        show(Event(1, "busy"), 3)
        show(Event(1, "busy"), 3)
    assert capsys.readouterr().err.splitlines() == [
        "/v/a.mp4: a.en.vtt: no words in it",
        "skipped /v/b.mp4: too short: 3 s",
        "skipped /v/\\x1b[2J.mp4: no\\nvideo",
        "shard 1 is left to another process that works on it",
    ]


def test_a_line_now_and_then_tells_rate_time_left_and_skipped(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with shard_progress() as show:
        show(Event(7, "written", kept=10), 1000)  # an earlier run did these: they count as done, not as speed
        show(Event(0, "started", kept=2), 1000)
        for outcome in (GOOD, skipped("too short: 3 s"), skipped("too short: 4 s"), skipped("x", "static")):
            now[0] += 10
            show(Event(0, "video", outcome=outcome), 1000)
        # Another machine takes over: its count starts again.
        show(Event(0, "started", kept=3), 1000)
    lines = [line for line in capsys.readouterr().err.splitlines() if " of 1000 videos" in line]
    assert lines == [
        "15 of 1000 videos, 0.10 videos/s, 2:44:10 left, 2 skipped (2 too short)",
    ]


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (skipped("too short: 3.0 s with the first word at 1 s"), "too short"),
        (skipped("decoding took more than 50 s"), "decoding took more than"),
        (skipped("its decoding process died (signal SIGSEGV)"), "its decoding process died"),
        (skipped("empty file"), "empty file"),
        (skipped("12 tracks"), "12 tracks"),
        (skipped("duplicate of a.mp4", "duplicates"), "filter duplicates"),
    ],
)
def test_skipped_files_are_counted_by_the_reason_without_details(outcome, expected):
    assert category(outcome) == expected
