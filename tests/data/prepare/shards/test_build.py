"""Builds of one shard: what they keep, and what a killed process leaves."""

from __future__ import annotations

import pytest

from reserve.config import FilterConfig
from reserve.data.prepare.shards import build
from reserve.data.prepare.shards.build import Busy, ShardBuild
from reserve.data.prepare.shards.plan import ShardPlan, by_shard
from reserve.data.prepare.video import PreparationSettings
from reserve.data.shards.layout import shard_of
from reserve.data.shards.records import read_settings
from reserve.data.sources.discover import discover_sources
from tests.helpers.shard_videos import contents, prepare, write_words

NUMBER = shard_of("video 1.mp4", 3)
NAME = f"shard-{NUMBER:05d}"


def make_plan(videos, out):
    settings = read_settings((out / "settings.json").read_bytes())
    sources = by_shard(discover_sources([videos]), settings.num_shards)
    return ShardPlan(out, settings, PreparationSettings(), FilterConfig(), sources)


def test_a_shard_has_one_builder(videos, out):
    first = ShardBuild(make_plan(videos, out), NUMBER)
    with pytest.raises(Busy):
        ShardBuild(make_plan(videos, out), NUMBER)
    first.release()
    first.release()
    ShardBuild(make_plan(videos, out), NUMBER).release()


def test_what_did_not_change_is_kept(videos, out):
    write_words(videos / "video 1.mp4", 77)
    again = ShardBuild(make_plan(videos, out), NUMBER)
    assert [item.source.video_id for item in again.pending] == ["video 1.mp4"]
    assert again.kept == len(again._items) - 1 > 0
    assert not again.is_complete
    again.release()


def test_partial_files_of_killed_processes_are_removed(videos, out):
    (out / "work" / NAME).mkdir(parents=True)
    left = [out / f".{NAME}.tar.1-2.partial", out / "work" / NAME / ".a.safetensors.1-2.partial"]
    other = out / ".shard-00099.tar.1-2.partial"
    for path in (*left, other):
        path.write_bytes(b"x")
    ShardBuild(make_plan(videos, out), NUMBER).release()
    assert [path.exists() for path in left] == [False, False]
    assert other.exists()  # of a shard that another process may be writing


@pytest.mark.parametrize("written", [False, True])
def test_a_kill_while_a_shard_is_rewritten_loses_nothing(videos, out, tmp_path, monkeypatch, spy, written):
    """The record is set aside before the shard's files change, so the shard does not look finished meanwhile."""
    write_words(videos / "video 1.mp4", 77)
    write = build.write_shard

    def killed(*arguments, **options):
        if written:
            write(*arguments, **options)
            (out / f"{NAME}.json").unlink()  # the record comes last
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(build, "write_shard", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(videos, out)
    assert not (out / f"{NAME}.json").exists()
    assert not (out / "manifest.json").exists()
    spy.opened.clear()
    prepare(videos, out)
    others = [name for name in spy.opened if name != "video 1.mp4"]
    assert "video 1.mp4" not in spy.opened  # its store is there
    assert bool(others) == written  # they lie in the old files only, which are gone then
    prepare(videos, tmp_path / "anew")
    assert contents(out) == contents(tmp_path / "anew")


@pytest.mark.parametrize("name", [f"{NAME}.json", "manifest.json"])
def test_a_damaged_record_or_manifest_is_made_again(videos, out, shard_set, name):
    """A digit changes, which leaves it valid JSON."""
    path = out / name
    before = path.read_text()
    path.write_text(before.replace('"words": ', '"words": 1', 1))
    assert path.read_text() != before
    prepare(videos, out)
    assert contents(out) == contents(shard_set)
