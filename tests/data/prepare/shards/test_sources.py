"""Sets of shards made from the stores of an earlier run."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from reserve.config import DataConfig, FilterConfig
from reserve.data.prepare.record import prepare_and_record
from reserve.data.prepare.shards import prepare_shards
from reserve.data.prepare.shards.outcomes import judge_stored
from reserve.data.prepare.shards.sources import StoredVideo, find_sources, is_run, is_store_of
from reserve.data.shards.read import ShardSet
from reserve.data.shards.records import read_record
from reserve.data.shards.verify import verify_shards
from reserve.data.store import load_segments, save_segments
from reserve.errors import BadInput, EnvironmentFailure
from tests.helpers.shard_videos import contents, prepare
from tests.helpers.small_stores import make_segments


@pytest.fixture(scope="module")
def prepared_run(shard_source, tmp_path_factory):
    """The folder of a run that prepared the videos. Not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "run"
    prepare_and_record([shard_source], run, DataConfig(), workers=0, seed=0)
    return run


@pytest.fixture
def run(prepared_run, tmp_path):
    return shutil.copytree(prepared_run, tmp_path / "run")


def test_stores_become_shards_without_decoding(run, tmp_path, spy):
    preparation = prepare(run, tmp_path / "out")
    assert spy.opened == []
    assert (preparation.videos, preparation.manifest.skipped) == (5, {})
    stored = {load_segments(store).video_id: load_segments(store) for store in (run / "prepared").iterdir()}
    for part in ShardSet.open(tmp_path / "out").parts:
        shard = part.open()
        for video in range(len(shard.segment_counts())):
            ours, theirs = shard.load(video), stored.pop(shard.video_id(video))
            assert (ours.frames, ours.words, ours.metadata) == (theirs.frames, theirs.words, theirs.metadata)
            np.testing.assert_array_equal(ours.log_mel, theirs.log_mel)
    assert stored == {}


def test_they_hold_the_samples_that_the_videos_give(run, shard_set, tmp_path):
    prepare(run, tmp_path / "out", videos_per_shard=2)
    ours, theirs = contents(tmp_path / "out"), contents(shard_set)
    assert [ours[name] == theirs[name] for name in ours if name.endswith(".tar")] == [True, True]


def test_any_workers_and_folds_give_the_same_bytes(run, tmp_path):
    prepare(run, tmp_path / "whole")
    prepare(run, tmp_path / "folds", fold=1, folds=2, workers=1)
    prepare(run, tmp_path / "folds", fold=0, folds=2)
    assert contents(tmp_path / "whole") == contents(tmp_path / "folds")


def test_a_store_that_cannot_be_used_is_skipped_with_its_reason(run, tmp_path):
    stores = sorted((run / "prepared").iterdir())
    stores[0].write_bytes(stores[0].read_bytes()[:-1])
    stores[1].unlink()
    segments = make_segments(0, 2, first_number=0)
    save_segments(type(segments)(**{**fields_of(segments), "log_mel": segments.log_mel[:, :100]}), stores[2])
    events = []
    preparation = prepare(run, tmp_path / "out", on_event=lambda event, _: events.append(event))
    assert preparation.videos == 2
    reasons = [event.outcome.reason for event in events if event.outcome and event.path in map(str, stores[:3])]
    assert len(reasons) == 3
    assert any(reason.startswith("its spectrograms are [100, 64]; data.spec_size") for reason in reasons)
    assert not any("delete it" in reason or str(tmp_path) in reason for reason in reasons)


def test_a_store_that_holds_another_video_is_skipped(run, tmp_path):
    """Two files with the id of one video."""
    stores = sorted((run / "prepared").iterdir())
    stores[1].write_bytes(stores[0].read_bytes())
    preparation = prepare(run, tmp_path / "out")
    assert (preparation.videos, preparation.manifest.skipped) == (4, {"unusable": 1})
    (skipped,) = [each for name in (tmp_path / "out").glob("shard-*.json") for each in read_skipped(name)]
    assert skipped.reason == "it holds another video than its name says: video 0.mp4"


def read_skipped(path):
    return read_record(path.read_bytes(), path.name).skipped


def test_a_store_with_an_id_that_no_file_has(run):
    store = next((run / "prepared").iterdir())
    assert not is_store_of(store, "\ud800")


def test_stores_of_a_lost_mount_stop_the_preparation(run, tmp_path):
    sources = find_sources([run], ("en",))
    shutil.rmtree(run / "prepared")
    with pytest.raises(EnvironmentFailure, match="prepared is gone"):
        judge_stored(sources[0], DataConfig(), FilterConfig(), keep_sound=False)


def fields_of(segments):
    return {name: getattr(segments, name) for name in segments.__dataclass_fields__}


def test_stores_without_sound_cannot_become_flac(run, tmp_path):
    with pytest.raises(BadInput, match="prepared without the sound itself, which --sound flac needs"):
        prepare(run, tmp_path / "out", sound="flac")


def test_runs_and_videos_do_not_mix(run, shard_source):
    assert is_run(run)
    assert not is_run(shard_source)
    with pytest.raises(BadInput, match=r"run is the folder of a run and .*videos is not: prepare them into two sets"):
        find_sources([run, shard_source], ("en",))


def test_two_runs_with_videos_of_one_name(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    sources = find_sources([run, other, run], ("en",))
    assert len({source.video_id for source in sources}) == len(sources) == 10
    assert all(isinstance(source, StoredVideo) for source in sources)
    settings = {"workers": 0, "videos_per_shard": 4}
    prepare_shards([run, other], tmp_path / "out", DataConfig(), FilterConfig(duplicates=False), **settings)
    assert verify_shards(tmp_path / "out").faults == 0


def test_out_must_not_be_the_run(run):
    with pytest.raises(BadInput, match="run holds what is to be prepared"):
        prepare(run, run)
