"""Sets of shards: equal bytes whoever prepares them, and nothing is done twice."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from reserve.config import DataConfig, FilterConfig
from reserve.data import decode
from reserve.data.prepare import jobs
from reserve.data.prepare import workers as workers_module
from reserve.data.prepare.shards import build
from reserve.data.prepare.shards.locks import try_lock
from reserve.data.prepare.videos import prepare_videos
from reserve.data.shards.layout import shard_of
from reserve.data.shards.read import ShardSet
from reserve.data.shards.records import read_record
from reserve.data.sources.discover import discover_sources
from reserve.data.store import load_segments, save_segments
from reserve.errors import BadInput, EnvironmentFailure
from tests.helpers.batch_decoder import PyAVInBatches
from tests.helpers.shard_videos import HostilePyAV, contents, make_video, prepare, write_words

SHARDS = 3
GOOD = [f"video {number}.mp4" for number in range(5)]


def mtimes(out):
    return {path.name: path.stat().st_mtime_ns for path in out.iterdir()}


def records(out):
    return [read_record(path.read_bytes(), path.name) for path in sorted(out.glob("shard-*.json"))]


def videos_of(out):
    return sorted(video.video_id for record in records(out) for video in record.videos)


def skipped_of(out):
    return {each.video_id: (each.filter, each.reason) for record in records(out) for each in record.skipped}


def test_the_segments_are_those_of_stores(shard_source, shard_set, tmp_path):
    report = prepare_videos(discover_sources([shard_source]), tmp_path, DataConfig(), workers=0)
    shards = ShardSet.open(shard_set)
    stored = {result.video_id: load_segments(result.store) for result in report.results if result.store}
    seen = []
    for part in shards.parts:
        shard = part.open()
        for video, count in enumerate(shard.segment_counts()):
            ours, theirs = shard.load(video), stored[shard.video_id(video)]
            assert (len(ours), ours.frames, ours.words) == (count, theirs.frames, theirs.words)
            np.testing.assert_array_equal(ours.log_mel, theirs.log_mel)
            np.testing.assert_array_equal(ours.start, theirs.start)
            seen.append(shard.video_id(video))
    assert sorted(seen) == GOOD
    assert (shards.manifest.videos, shards.manifest.skipped) == (5, {"unusable": 1})
    assert shards.manifest.seconds == pytest.approx(sum(result.seconds for result in report.results))


def test_a_video_is_in_the_shard_of_its_id_in_the_order_of_ids(shard_set):
    for record in records(shard_set):
        names = [video.video_id for video in record.videos]
        assert names == sorted(names)
        assert {shard_of(name, SHARDS) for name in names} <= {record.number}


def test_a_finished_set_holds_nothing_else(shard_set):
    parts = [f"shard-{record.number:05d}" for record in records(shard_set) if record.videos]
    expected = {"settings.json", "manifest.json", *(f"shard-{number:05d}.json" for number in range(SHARDS))}
    assert set(os.listdir(shard_set)) == expected | {
        f"{part}.{suffix}" for part in parts for suffix in ("tar", "index")
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_makes_the_same_bytes(shard_source, shard_set, tmp_path, workers):
    prepare(shard_source, tmp_path / "out", workers=workers)
    assert contents(tmp_path / "out") == contents(shard_set)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0)])
def test_folds_in_any_order_make_the_same_bytes(shard_source, shard_set, tmp_path, order):
    for place, fold in enumerate(order):
        assert not (tmp_path / "manifest.json").exists()
        preparation = prepare(shard_source, tmp_path, fold=fold, folds=len(order))
        assert preparation.remaining == (0 if place == len(order) - 1 else SHARDS - preparation.shards - place)
    assert contents(tmp_path) == contents(shard_set)


def test_more_folds_than_shards(shard_source, shard_set, tmp_path):
    assert prepare(shard_source, tmp_path, fold=9, folds=10).remaining == SHARDS
    prepare(shard_source, tmp_path)
    assert contents(tmp_path) == contents(shard_set)


def test_a_decoder_of_batches_makes_the_same_shards(shard_source, shard_set, tmp_path, monkeypatch):
    decoder = PyAVInBatches(batch_size=2)
    monkeypatch.setattr(decode, "DECODERS", (decoder, *decode.DECODERS))
    prepare(shard_source, tmp_path, decoder=decoder.name)
    ours, theirs = contents(tmp_path), contents(shard_set)
    assert {name: ours[name] for name in ours if name.endswith(".tar")} == {
        name: theirs[name] for name in theirs if name.endswith(".tar")
    }
    assert sorted(map(len, decoder.batches)) == [1, 2, 2]  # batches go over the ends of shards


def test_a_set_begun_with_a_decoder_that_cannot_run_here_is_left_alone(shard_source, tmp_path, monkeypatch):
    decoder = PyAVInBatches()
    monkeypatch.setattr(decode, "DECODERS", (*decode.DECODERS, decoder))
    prepare(shard_source, tmp_path, fold=0, folds=2, decoder=decoder.name)
    before = contents(tmp_path)
    monkeypatch.setattr(decoder, "unavailable", lambda: "its GPU is elsewhere")
    with pytest.raises(EnvironmentFailure, match=r"was begun with the decoder 'pyav-in-batches'.*its GPU is elsewhere"):
        prepare(shard_source, tmp_path, fold=1, folds=2, decoder="auto")
    assert contents(tmp_path) == before


def test_a_finished_set_needs_no_decoder(shard_source, tmp_path, monkeypatch):
    decoder = PyAVInBatches()
    monkeypatch.setattr(decode, "DECODERS", (*decode.DECODERS, decoder))
    prepare(shard_source, tmp_path, decoder=decoder.name)
    before = contents(tmp_path)
    monkeypatch.setattr(decoder, "unavailable", lambda: "its GPU is elsewhere")
    assert prepare(shard_source, tmp_path, decoder="auto").remaining == 0
    assert contents(tmp_path) == before


def test_sound_as_flac(shard_source, tmp_path):
    prepare(shard_source, tmp_path, sound="flac")
    shard = ShardSet.open(tmp_path).parts[0].open()
    assert shard.sound == "flac"
    assert len(shard.load(0).sound) == 2


def test_a_second_run_does_nothing(videos, out, spy):
    before = mtimes(out)
    preparation = prepare(videos, out)
    assert spy.opened == []
    assert mtimes(out) == before
    assert (preparation.videos, preparation.segments, preparation.remaining) == (5, 10, 0)
    assert dict(preparation.skipped) == {"not a media file that can be decoded": 1}


def test_only_the_shards_of_what_changed_are_rebuilt(videos, out, spy, tmp_path):
    before = mtimes(out)
    write_words(videos / "video 1.mp4", 77)  # changes its transcript
    (videos / "video 3.mp4").unlink()
    make_video(videos / "new.mp4", 50)
    prepare(videos, out)
    assert sorted(spy.opened) == ["new.mp4", "video 1.mp4"]
    after = mtimes(out)
    touched = {shard_of(name, SHARDS) for name in ("video 1.mp4", "video 3.mp4", "new.mp4")}
    assert len(touched) < SHARDS
    for number in range(SHARDS):
        same = [after.get(name) == before[name] for name in before if name.startswith(f"shard-{number:05d}")]
        assert all(same) if number not in touched else not any(same)
    assert videos_of(out) == ["new.mp4", "video 0.mp4", "video 1.mp4", "video 2.mp4", "video 4.mp4"]
    prepare(videos, tmp_path / "anew", videos_per_shard=2)
    assert contents(out) == contents(tmp_path / "anew")


def test_a_damaged_shard_that_is_to_be_rebuilt_is_not_copied_from(videos, out, spy):
    (number,) = {shard_of("video 1.mp4", SHARDS)}
    tar = out / f"shard-{number:05d}.tar"
    data = bytearray(tar.read_bytes())
    data[1000] ^= 1
    tar.write_bytes(data)
    write_words(videos / "video 1.mp4", 77)
    prepare(videos, out)
    assert sorted(spy.opened) == [name for name in GOOD if shard_of(name, SHARDS) == number]


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-1])])
@pytest.mark.parametrize("suffix", ["tar", "index", "json"])
def test_a_shard_whose_files_are_not_there_is_prepared_again(videos, out, shard_set, change, suffix):
    number = shard_of("video 1.mp4", SHARDS)
    change(out / f"shard-{number:05d}.{suffix}")
    prepare(videos, out)
    assert contents(out) == contents(shard_set)


def test_a_file_stays_skipped_until_it_changes_or_is_to_be_retried(videos, out, spy):
    before = mtimes(out)
    prepare(videos, out, retry_skipped=True)
    assert spy.opened == ["noise.mp4"]
    assert mtimes(out) == before
    make_video(videos / "noise.mp4", 60)
    prepare(videos, out)
    assert spy.opened == ["noise.mp4"] * 2
    assert "noise.mp4" in videos_of(out)


def test_filters_are_counted(shard_source, tmp_path):
    source = shutil.copytree(shard_source, tmp_path / "videos")
    transcript = source / "video 3.json"
    transcript.write_text(json.dumps(json.loads(transcript.read_text())[:5]))
    preparation = prepare(source, tmp_path / "out", filters=FilterConfig(min_words_per_minute=70))
    assert preparation.skipped == {"filter few_words": 1, "not a media file that can be decoded": 1}
    assert preparation.manifest.skipped == {"few_words": 1, "unusable": 1}
    name, reason = skipped_of(tmp_path / "out")["video 3.mp4"]
    assert name == "few_words"
    assert "filter.min_words_per_minute is 70" in reason
    assert videos_of(tmp_path / "out") == [name for name in GOOD if name != "video 3.mp4"]


def test_duplicates_in_all_shards_are_left_out_until_they_are_none(videos, out, spy, tmp_path):
    for copy in ("copy a.mp4", "copy b.mp4", "copy c.mp4"):
        for suffix in (".mp4", ".json"):
            data = (videos / "video 2.mp4").with_suffix(suffix).read_bytes()
            (videos / copy).with_suffix(suffix).write_bytes(data)
    preparation = prepare(videos, out)
    same = {"copy a.mp4", "copy b.mp4", "copy c.mp4", "video 2.mp4"}
    assert len({shard_of(name, SHARDS) for name in same}) > 1
    kept = same & set(videos_of(out))
    assert len(kept) == 1
    assert {skipped_of(out)[name] for name in same - kept} == {("duplicates", f"duplicate of {min(kept)}")}
    assert preparation.manifest.skipped == {"duplicates": 3, "unusable": 1}
    sets = [tmp_path / "whole", tmp_path / "in folds"]
    prepare(videos, sets[0])
    for fold in (1, 0):
        prepare(videos, sets[1], fold=fold, folds=2)
    assert contents(sets[0]) == contents(sets[1])
    spy.opened.clear()
    prepare(videos, out)
    assert spy.opened == []
    (videos / min(kept)).unlink()
    assert prepare(videos, out).manifest.videos == 5
    assert len(same & set(videos_of(out))) == 1
    assert len(spy.opened) == 1  # the copy that takes its place


def test_other_settings_are_refused_by_name(videos, out):
    before = contents(out)
    with pytest.raises(BadInput) as caught:
        prepare_all_else(videos, out)
    message = str(caught.value)
    assert str(out) in message
    for part in (
        "videos_per_shard was 2, is 3 now",
        "seed was 0, is 4 now",
        "sound was log_mel, is flac now",
        "audio_track was None, is 0 now",
        "filter.min_words_per_minute was 4.0, is 5 now",
    ):
        assert part in message
    assert "num_shards" not in message
    assert "data." not in message
    assert contents(out) == before


def prepare_all_else(videos, out):
    return prepare(
        videos,
        out,
        videos_per_shard=3,
        seed=4,
        sound="flac",
        audio_track=0,
        filters=FilterConfig(min_words_per_minute=5),
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fold": 2, "folds": 2}, "fold must be from 0 to 1, since there are 2 folds; got 2"),
        ({"fold": -1}, "fold must be from 0 to 0"),
        ({"folds": 0}, "folds must be at least 1; got 0"),
        ({"videos_per_shard": 0}, "videos_per_shard must be at least 1; got 0"),
        ({"decoder": "x"}, "decoder must be 'auto' or one of 'dali', .*; got 'x'"),
    ],
)
def test_wrong_values(shard_source, tmp_path, options, message):
    with pytest.raises(ValueError, match=message.replace("'", ".")):
        prepare(shard_source, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_out_must_not_be_what_is_prepared(videos):
    with pytest.raises(BadInput, match=r"videos holds what is to be prepared"):
        prepare(videos, videos)
    with pytest.raises(BadInput, match=r"holds what is to be prepared"):
        prepare(videos, videos.parent)  # The videos would be foreign files of the set.
    with pytest.raises(BadInput, match=r"OUT must be a folder or a name that is free"):
        prepare(videos, videos / "noise.mp4")
    (videos / "broken").symlink_to("nowhere")
    with pytest.raises(BadInput, match=r"a name that is free; .* is a broken link"):
        prepare(videos, videos / "broken")


def test_nothing_usable_says_why(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(12):
        (tmp_path / "in" / f"{number:02d}.mp4").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(BadInput, match=r"none of the 12 files could be used") as caught:
            prepare(tmp_path / "in", tmp_path / "out")
        assert "00.mp4: empty file" in str(caught.value)
        assert str(caught.value).endswith("and 2 more")
    assert not (tmp_path / "out" / "work").exists()


def test_a_full_disk_stops_the_preparation_and_keeps_what_is_done(shard_source, shard_set, tmp_path, monkeypatch, spy):
    written = []

    def save(*arguments, **options):
        if len(written) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(save_segments(*arguments, **options))

    monkeypatch.setattr(jobs, "save_segments", save)
    with pytest.raises(EnvironmentFailure, match=r"No space left on device\. What is prepared is kept"):
        prepare(shard_source, tmp_path)
    monkeypatch.setattr(jobs, "save_segments", save_segments)
    spy.opened.clear()
    prepare(shard_source, tmp_path)
    assert len([name for name in spy.opened if name != "noise.mp4"]) == 2
    assert contents(tmp_path) == contents(shard_set)


def test_a_disk_that_is_full_when_a_shard_is_written(shard_source, shard_set, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(build, "write_shard", full)
        with pytest.raises(EnvironmentFailure, match="No space left on device"):
            prepare(shard_source, tmp_path)
    prepare(shard_source, tmp_path)
    assert contents(tmp_path) == contents(shard_set)


def test_hostile_videos_cost_themselves_alone(videos, tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr(workers_module, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(decode, "DECODERS", (HostilePyAV(),))
    for name, number in (("crash.mp4", 20), ("hang.mp4", 21)):
        make_video(videos / name, number)
    seen = []

    def on_event(event, total):
        nonlocal now
        seen.extend([event.outcome.video_id] if event.outcome else [])
        if len(seen) == total - 1:
            now = 1e6  # only the video that hangs is left: its time is up

    prepare(videos, tmp_path / "out", workers=2, on_event=on_event)
    skipped = {name: reason for name, (_, reason) in skipped_of(tmp_path / "out").items()}
    assert skipped["crash.mp4"] == "its decoding process died (signal SIGSEGV)"
    assert skipped["hang.mp4"].startswith("took more than")
    assert videos_of(tmp_path / "out") == GOOD


def test_a_shard_of_another_process_is_waited_for(shard_source, shard_set, tmp_path, monkeypatch):
    """It is prepared once the other process dies, which frees its lock."""
    lock = try_lock(tmp_path / "work" / "shard-00001.lock")
    events = []

    def sleep(seconds):
        assert [event.shard for event in events if event.kind == "busy"] == [1]
        assert {event.shard for event in events if event.kind == "written"} == {0, 2}
        lock.release()

    monkeypatch.setattr("reserve.data.prepare.shards.prepare.time", SimpleNamespace(sleep=sleep))
    prepare(shard_source, tmp_path, on_event=lambda event, _: events.append(event))
    assert contents(tmp_path) == contents(shard_set)


def test_names_that_are_not_text(tmp_path):
    name = os.fsdecode(b"caf\xe9.mp4")
    make_video(tmp_path / "videos" / name, 1)
    (tmp_path / "videos" / os.fsdecode(b"b\xe9d.mp4")).write_bytes(b"x")
    prepare(tmp_path / "videos", tmp_path / "out")
    assert videos_of(tmp_path / "out") == [name]
    before = mtimes(tmp_path / "out")
    prepare(tmp_path / "videos", tmp_path / "out")
    assert mtimes(tmp_path / "out") == before


def test_the_place_of_the_videos_does_not_matter(shard_source, shard_set, tmp_path, monkeypatch):
    """Machines may mount them elsewhere."""
    moved = shutil.copytree(shard_source, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    prepare(Path("elsewhere"), Path("out"))
    assert contents(tmp_path / "out") == contents(shard_set)
    assert moved.exists()
