"""Shards prepared by Ray on this machine: the same bytes, also where a node dies."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from reserve.data.prepare.shards.engines.ray import _check_sight, _Mailbox, ray_engine
from reserve.data.prepare.shards.events import Event
from reserve.data.prepare.shards.plan import by_shard
from reserve.data.shards.layout import shard_of
from reserve.data.shards.records import read_settings, write_settings
from reserve.data.sources.discover import discover_sources
from reserve.errors import EnvironmentFailure
from tests.helpers.shard_videos import contents, make_videos, prepare


def test_ray_makes_the_same_bytes(shard_source, shard_set, tmp_path):
    """With the other shards prepared by processes of this machine."""
    pytest.importorskip("ray")
    prepare(shard_source, tmp_path, fold=0, folds=3)
    prepare(shard_source, tmp_path, fold=2, folds=3)
    events = []
    with ray_engine(None, 1) as engine:
        prepare(shard_source, tmp_path, engine=engine, on_event=lambda event, total: events.append((event, total)))
    assert contents(tmp_path) == contents(shard_set)
    assert {total for _, total in events} == {6}
    tried = [event.outcome.video_id for event, _ in events if event.kind == "video"]
    assert tried == [path.name for path in shard_source.glob("*.mp4") if shard_of(path.name, 3) == 1] != []
    assert sorted(event.shard for event, _ in events if event.kind == "written") == [0, 1, 2]


@pytest.mark.slow
def test_a_node_that_dies_is_survived(tmp_path):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    source = make_videos(tmp_path / "videos", 9)
    prepare(source, tmp_path / "whole")
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        second = cluster.add_node(**node)
        cluster.wait_for_nodes()
        killed = []

        def on_event(event, _):
            if event.kind == "video" and not killed:  # both nodes are at work or about to be
                killed.append(cluster.remove_node(second, allow_graceful=False))

        with ray_engine(cluster.address, 4) as engine:
            prepare(source, tmp_path / "out", engine=engine, on_event=on_event)
        assert killed
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def plan(out, videos):
    settings = read_settings((out / "settings.json").read_bytes())
    return SimpleNamespace(
        out=out, settings=settings, sources=by_shard(discover_sources([videos]), settings.num_shards)
    )


def test_a_machine_that_does_not_see_the_files_is_named(videos, out, tmp_path):
    seen = plan(out, videos)
    _check_sight(seen)
    videos.rename(tmp_path / "elsewhere")
    with pytest.raises(EnvironmentFailure, match=rf"does not see {videos}: SOURCE and OUT must be on a file system"):
        _check_sight(seen)
    (out / "settings.json").unlink()
    with pytest.raises(EnvironmentFailure, match=rf"does not see {out / 'settings.json'}"):
        _check_sight(seen)


def test_another_folder_of_the_same_name_is_not_seen_as_the_set(videos, out):
    seen = plan(out, videos)
    write_settings(out, replace(seen.settings, seed=9))
    with pytest.raises(EnvironmentFailure, match=r"does not see .*settings\.json"):
        _check_sight(seen)


def test_the_mailbox_gives_each_event_once():
    mailbox = _Mailbox()
    mailbox.add(Event(1, "started"))
    mailbox.add(Event(1, "written"))
    assert [event.kind for event in mailbox.take()] == ["started", "written"]
    assert mailbox.take() == []


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'merlot-reserve\[ray\]'"), ray_engine(None, 1):
        pass
