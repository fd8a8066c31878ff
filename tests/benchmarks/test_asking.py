from __future__ import annotations

import json

import pytest

from benchmarks import asking
from benchmarks.report import asking as asking_text
from tests.helpers.served import write_video

pytest.importorskip("faiss", reason="searching needs faiss: pip install 'merlot-reserve[search]'")


def test_a_preset_is_measured(narrated_videos, monkeypatch):
    monkeypatch.setattr(asking, "ROUNDS", 1)
    (video,) = (narrated_videos / "heldout").glob("*.mp4")
    found = asking.measured("tiny", video)
    assert all(found[name] > 0 for name in ("index_s", "ask_s", "peak_gb"))
    assert (found["video"], found["minutes"]) == (video.name, pytest.approx(1.5, abs=0.2))


def test_a_silent_video_is_refused(tmp_path):
    video = write_video(tmp_path / "silent.mp4", 61, sound=False)
    with pytest.raises(SystemExit, match=r"silent\.mp4 must have sound and last a minute or more; it lasts 61 s"):
        asking.measured("tiny", video)


def test_what_a_process_prints_is_its_result():
    found = asking._in_process("benchmarks.moment_search", "--moments=500", "--hidden=64", threads=1)
    assert found["moments"] == 500
    assert found["query_ms"] > 0


def test_every_case_has_its_process_and_the_result_is_shown(tmp_path, monkeypatch):
    asked = []

    def in_process(module, *arguments, threads):
        asked.append((module, arguments, threads))
        if module == "benchmarks.asking":
            return {"index_s": 0.25, "ask_s": 12.0, "peak_gb": 2.0, "video": "a.mp4", "minutes": 1.6}
        return {"moments": 500, "hidden": 768, "read_s": 6.0, "query_ms": 100.0 / threads, "query_ms_low": 90.0,
                "query_ms_high": 110.0, "peak_gb": 3.0}  # fmt: skip

    monkeypatch.setattr(asking, "_in_process", in_process)
    monkeypatch.setattr(asking.os, "sched_getaffinity", lambda process: set(range(4)))
    monkeypatch.setattr("benchmarks.learning.provenance.RESULTS", tmp_path)
    asking.main(["--video", "a.mp4", "--moments", "500", "--save"])
    assert [threads for _, _, threads in asked] == [4, 4, 1, 4]
    assert ("benchmarks.asking", ("--video=a.mp4", "--one=base"), 4) in asked
    (path,) = tmp_path.glob("*/asking.json")
    assert asking_text.stored(tmp_path) == json.loads(path.read_text("utf-8"))
    said = asking_text.text(asking_text.stored(tmp_path))
    assert "| index, a minute of video | 0.25 s | 0.25 s |" in said
    assert "| a query (quartiles) | 100 ms (90 to 110) | 25 ms (90 to 110) |" in said


def test_what_was_not_measured_says_so(tmp_path):
    assert asking_text.text(asking_text.stored(tmp_path)) == asking_text.NOT_MEASURED
