"""The decoding part of a session on a GPU machine runs to its end without one."""

from __future__ import annotations

import json
import time

import pytest

from benchmarks import decoding_lease
from benchmarks.decoding_lease import QUICK, Session, frames_of_videos, main, middles, video, video_hardware
from reserve.data.decode.dali import DaliDecoder


def test_facts_that_fail_and_facts_too_late(tmp_path):
    session = Session(tmp_path / "facts.json", time.monotonic() + 3600)
    session.add("known", lambda: 3)
    session.add("fails", lambda: 1 / 0)
    session.end = 0
    session.add("late", lambda: 4)
    assert json.loads((tmp_path / "facts.json").read_text("utf-8")) == {
        "known": 3,
        "fails": "not measured: ZeroDivisionError: division by zero",
        "late": "not measured: the time is over",
    }


def test_whole_session_without_videos(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding_lease, "CODECS", {})
    monkeypatch.setattr(decoding_lease, "ROUNDS", 1)
    monkeypatch.setattr(decoding_lease, "QUICK", QUICK._replace(pictures=2))
    assert main(["--quick", "--out", str(tmp_path)]) == 0
    facts = json.loads((tmp_path / "decoding_lease.json").read_text("utf-8"))
    assert {"machine", "libraries", "nvdec", "pictures on cpu", "pictures on cuda"} == set(facts)
    assert facts["pictures on cpu"]["pillow_images_per_s"] > 0


def test_frames(tmp_path, monkeypatch):
    if (reason := DaliDecoder().unavailable()) is not None:
        pytest.skip(reason)
    monkeypatch.setattr(decoding_lease, "ROUNDS", 1)
    monkeypatch.setattr(decoding_lease, "RATE", 5)
    monkeypatch.setitem(decoding_lease.SIZES, "tiny", (96, 128))
    found = frames_of_videos(video(tmp_path, "vp9", "tiny", 6), QUICK)
    assert found["times"] == len(middles(6)) == 1
    assert found["device"] in ("cpu", "mixed")
    assert found["difference_mean"] < 4


def test_video_hardware_is_a_table_or_a_reason():
    assert video_hardware()
