"""The last step of a set, beside other processes."""

from __future__ import annotations

import os

import pytest

from reserve.config import FilterConfig
from reserve.data.prepare.shards import finish as finish_module
from reserve.data.prepare.shards.finish import drop_damaged_records, finish, unfinished_shards
from reserve.data.prepare.shards.locks import try_lock
from reserve.data.prepare.shards.plan import ShardPlan, by_shard
from reserve.data.prepare.video import PreparationSettings
from reserve.data.shards.records import read_settings
from reserve.data.sources.discover import discover_sources
from tests.helpers.shard_videos import contents, prepare


@pytest.fixture
def plan(videos, out):
    settings = read_settings((out / "settings.json").read_bytes())
    sources = by_shard(discover_sources([videos]), settings.num_shards)
    return ShardPlan(out, settings, PreparationSettings(), FilterConfig(), sources)


def test_a_finished_set_is_left_as_it_is(plan, shard_set):
    assert unfinished_shards(plan) == []
    assert finish(plan, workers=0).videos == 5
    assert contents(plan.out) == contents(shard_set)
    assert not plan.work.exists()


def test_the_scratch_folder_stays_while_a_process_works_in_it(plan):
    lock = try_lock(plan.lock(1))
    plan.folder(1).mkdir()
    # A process of another machine writes it: its id says nothing here.
    written = plan.out / ".shard-00001.tar.4194305-1.partial"
    written.touch()
    finish(plan, workers=0)
    assert plan.folder(1).exists()
    assert written.exists()
    lock.release()
    finish(plan, workers=0)
    assert not plan.work.exists()


def test_files_of_killed_processes_are_removed(plan):
    (plan.out / ".manifest.json.4194305-1.partial").write_bytes(b"x")  # above the ids that processes get
    plan.folder(2).mkdir(parents=True)
    plan.lock(2).touch()
    finish(plan, workers=0)
    assert not plan.work.exists()
    assert not [name for name in os.listdir(plan.out) if name.startswith(".")]


def test_a_shard_that_another_process_begins_to_change_is_left_to_it(plan, monkeypatch):
    (plan.out / "manifest.json").unlink()
    record = plan.out / "shard-00001.json"

    def vanishes(videos):
        list(videos)
        record.unlink()
        return {}

    monkeypatch.setattr(finish_module, "find_duplicates", vanishes)
    assert finish(plan, workers=0) is None
    assert not (plan.out / "manifest.json").exists()
    assert unfinished_shards(plan) == [1]


def test_a_record_is_damaged_only_if_the_manifest_says_so(plan):
    record = plan.out / "shard-00001.json"
    record.write_text(record.read_text() + " ")
    held = try_lock(plan.lock(1))
    drop_damaged_records(plan, [0, 1, 2])
    assert record.exists()  # another process may be writing it
    held.release()
    manifest = plan.out / "manifest.json"
    text = manifest.read_text()
    manifest.unlink()
    drop_damaged_records(plan, [0, 1, 2])
    assert record.exists()
    manifest.write_text(text)
    drop_damaged_records(plan, [0, 1, 2])
    assert not record.exists()
    assert unfinished_shards(plan) == [1]


def test_a_set_of_a_single_empty_shard_among_others(tmp_path, shard_source):
    """Far more shards than videos: those without any have only a record."""
    preparation = prepare(shard_source, tmp_path, videos_per_shard=1, fold=0, folds=1)
    empty = [entry for entry in preparation.manifest.shards if not entry.videos]
    assert empty
    assert all(entry.tar is None for entry in empty)
    assert not any((tmp_path / f"{entry.name}.tar").exists() for entry in empty)
