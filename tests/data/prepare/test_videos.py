"""Preparation of many files: counts, reasons, stores that are kept, and real clips."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil

import numpy as np
import pytest

from reserve.config import DataConfig
from reserve.data.decode import choose_decoder
from reserve.data.decode.protocol import MediaLimits
from reserve.data.prepare import jobs
from reserve.data.prepare.jobs import store_name
from reserve.data.prepare.videos import prepare_videos
from reserve.data.sources.discover import discover_sources
from reserve.data.store import load_segments, save_segments
from reserve.errors import EnvironmentFailure, NothingPrepared
from reserve.tasks.pretrain.example_plan import plan_examples
from tests.helpers.media_files import Sound, click_track, write_media

SECONDS = 12
WORDS = [{"word": f"word{i}", "start": i * 0.5, "end": i * 0.5 + 0.5} for i in range(2 * SECONDS)]


def make_good(folder, stem):
    folder.mkdir(parents=True, exist_ok=True)
    sounds = [Sound(click_track(SECONDS, [1.0, 5.0]))]
    write_media(folder / f"{stem}.mp4", frame_times=[i / 5 for i in range(5 * SECONDS)], sounds=sounds)
    (folder / f"{stem}.json").write_text(json.dumps(WORDS))


def make_bad(folder):
    """Files that cannot be used, and the reason against each."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).bytes(30_000)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "noise.mp4").write_bytes(noise)
    write_media(folder / "music.mp3", sounds=[Sound(click_track(3, [1.0]), codec="libmp3lame")])
    write_media(folder / "mute.mp4", frame_times=[0, 1, 2])
    make_good(folder, "cut")
    (folder / "cut.mp4").write_bytes((folder / "cut.mp4").read_bytes()[:5000])
    make_good(folder, "garbled")
    (folder / "garbled.json").write_bytes(noise)
    os.mkfifo(folder / "pipe.mp4")
    return {
        "cut.mp4": "not a media file",
        "empty.mp4": "empty file",
        "garbled.mp4": "no usable transcript",
        "music.mp3": "no video stream",
        "mute.mp4": "no audio track",
        "noise.mp4": "not a media file",
        "pipe.mp4": "not a regular file",
    }


def prepare(folder, out, **options):
    return prepare_videos(discover_sources([folder]), out, DataConfig(), **{"workers": 0, **options})


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_files_among_good_ones(tmp_path, workers, caplog):
    make_good(tmp_path / "in", "good one")
    expected = make_bad(tmp_path / "in")
    seen = []
    with caplog.at_level(logging.WARNING, logger="reserve.data.prepare.videos"):
        report = prepare(tmp_path / "in", tmp_path / "out", workers=workers, on_result=seen.append)
    assert {result.video_id for result in seen} == {*expected, "good one.mp4"}
    assert [result.video_id for result in report.results] == sorted([*expected, "good one.mp4"])
    for result in report.skipped:
        assert result.reason.startswith(expected[result.video_id])
        assert f"skipped {result.video_id}: {result.reason}" in caplog.text
    counts = "8 files: 1 usable (0 unchanged) with 2 segments and 20 words, 7 skipped"
    assert report.summary() == f"{counts}; frames by {choose_decoder().name}: 1"
    found = {result.video_id: (result.segments, result.words, result.reason) for result in report.results}
    assert found["good one.mp4"] == (2, 20, "")
    assert found["empty.mp4"] == (0, 0, "empty file")
    (store,) = report.stores
    assert [path.name for path in (tmp_path / "out").iterdir()] == [store.name]
    assert load_segments(store).video_id == "good one.mp4"


def test_prepared_files_are_kept_until_something_changes(tmp_path):
    make_good(tmp_path / "in", "a")

    def status(**options):
        (result,) = prepare(tmp_path / "in", tmp_path / "out", **options).results
        return result.status, result.segments, result.words

    assert status() == ("prepared", 2, 20)
    assert status() == ("unchanged", 2, 20)
    assert status(seed=1)[0] == "prepared"
    assert status(seed=1, limits=MediaLimits(max_duration=60))[0] == "prepared"
    assert status()[0] == "prepared"
    (tmp_path / "in" / "a.json").write_text(json.dumps(WORDS[:12]))
    assert status() == ("prepared", 2, 12)
    (tmp_path / "in" / "a.info.json").write_text('{"title": "T"}')
    assert status()[0] == "prepared"
    assert status()[0] == "unchanged"


def test_damaged_store_is_made_again(tmp_path):
    make_good(tmp_path / "in", "a")
    (store,) = prepare(tmp_path / "in", tmp_path / "out").stores
    store.write_bytes(store.read_bytes()[:100])
    assert prepare(tmp_path / "in", tmp_path / "out").results[0].status == "prepared"
    assert len(load_segments(store)) == 2


def test_store_of_a_file_that_became_bad_is_removed(tmp_path):
    make_good(tmp_path / "in", "a")
    make_good(tmp_path / "in", "b")
    prepare(tmp_path / "in", tmp_path / "out")
    (tmp_path / "in" / "a.mp4").write_bytes(b"x")
    report = prepare(tmp_path / "in", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == report.stores == [tmp_path / "out" / store_name("b.mp4")]


def test_a_full_disk_stops_the_preparation_and_is_not_the_files_fault(tmp_path, monkeypatch):
    for stem in "abc":
        make_good(tmp_path / "in", stem)
    written = []

    def save(*arguments, **options):
        if written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(save_segments(*arguments, **options))

    monkeypatch.setattr(jobs, "save_segments", save)
    reason = r"stopped after 1 of 3 videos: .*b\.mp4.* cannot be written: No space left on device\. What is prepared"
    with pytest.raises(EnvironmentFailure, match=reason):
        prepare(tmp_path / "in", tmp_path / "out")
    monkeypatch.undo()
    statuses = [result.status for result in prepare(tmp_path / "in", tmp_path / "out").results]
    assert statuses == ["unchanged", "prepared", "prepared"]


def test_a_source_folder_that_vanishes_stops_the_preparation(tmp_path):
    make_good(tmp_path / "in", "a")
    sources = discover_sources([tmp_path / "in"])
    shutil.rmtree(tmp_path / "in")
    with pytest.raises(EnvironmentFailure, match=r"in is gone"):
        prepare_videos(sources, tmp_path / "out", DataConfig(), workers=0)
    (tmp_path / "in").mkdir()  # as a lost mount leaves it
    with pytest.raises(EnvironmentFailure, match=r"in is empty now"):
        prepare_videos(sources, tmp_path / "out", DataConfig(), workers=0)


def test_a_file_that_vanishes_is_skipped(tmp_path):
    for stem in "ab":
        make_good(tmp_path / "in", stem)
    sources = discover_sources([tmp_path / "in"])
    (tmp_path / "in" / "a.mp4").unlink()
    report = prepare_videos(sources, tmp_path / "out", DataConfig(), workers=0)
    assert [(result.status, result.reason[:16]) for result in report.results] == [
        ("skipped", "cannot be opened"),
        ("prepared", ""),
    ]


def test_killed_processes_leave_no_files(tmp_path):
    make_good(tmp_path / "in", "a")
    (tmp_path / "out").mkdir()
    partial = ".a.safetensors.4194305-456.partial"  # above the ids that processes get
    (tmp_path / "out" / partial).write_bytes(b"x")
    report = prepare(tmp_path / "in", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == report.stores


def test_nothing_usable_says_why_for_each(tmp_path):
    expected = make_bad(tmp_path / "in")
    with pytest.raises(NothingPrepared, match="none of the 7 files could be used") as caught:
        prepare(tmp_path / "in", tmp_path / "out")
    for name, reason in expected.items():
        assert f"{name}: {reason}" in str(caught.value)
    assert len(caught.value.report.skipped) == 7


def test_time_limit_skips(tmp_path):
    make_good(tmp_path / "in", "a")
    with pytest.raises(NothingPrepared, match=r"a\.mp4: decoding took more than"):
        prepare(tmp_path / "in", tmp_path / "out", limits=MediaLimits(max_decode_seconds=1e-6))


REAL = {
    "ai_explained_16s.webm": "ai_explained_16s.srt",
    "manifesto.mp4": "manifesto.json",
    "nasa_13013.mp4": "nasa_13013.srt",
    "simpl_chrome.mp4": "simpl_chrome.vtt",
    "simpl_chrome.webm": "simpl_chrome.vtt",
}


def test_real_clips(shared_dir, tmp_path):
    folders = [shared_dir / "realdata" / name for name in ("video_open", "video_local_only")]
    report = prepare_videos(discover_sources(folders), tmp_path, DataConfig(), workers=1)
    assert {result.video_id: result.choice.transcript for result in report.results if result.store} == REAL
    assert len(report.results) == 33
    reasons = {result.video_id: result.reason for result in report.skipped}
    assert reasons["codec/av1_video.mkv"] == "no audio track"
    assert reasons["grid/swwp2s.mpg"].startswith("too short: 3.0 s")
    assert reasons["big_buck_bunny_0_30.webm"] == "no transcript beside it and no text track in it"
    counts = [len(load_segments(store)) for store in report.stores]
    assert len(plan_examples(counts)) >= 1
    words = next(result.words for result in report.results if result.video_id == "manifesto.mp4")
    assert 190 <= words <= 210
