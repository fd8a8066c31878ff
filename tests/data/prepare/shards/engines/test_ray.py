"""Shards prepared by Ray on this machine: the same bytes, also where a node dies."""

from __future__ import annotations

import signal
import socket
import sys
from contextlib import nullcontext
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest

from reserve.data.prepare.shards.engines import ray as ray_module
from reserve.data.prepare.shards.engines.ray import (
    RayEngine,
    _build_shard,
    _check_sight,
    _Mailbox,
    _result,
    ray_engine,
)
from reserve.data.prepare.shards.events import Event
from reserve.data.prepare.shards.plan import by_shard
from reserve.data.prepare.workers import WorkerEnded
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
def test_a_task_whose_machine_is_shut_down_is_tried_again(shard_source, shard_set, tmp_path, monkeypatch):
    """The signal may reach the process that decodes before the task's own."""
    pytest.importorskip("ray")
    marker, build_shard = tmp_path / "ended", _build_shard

    def ends(plan, number, mailbox):
        if not marker.exists():
            marker.touch()
            raise WorkerEnded("a worker process was ended by SIGTERM")
        return build_shard(plan, number, mailbox)

    monkeypatch.setattr(ray_module, "_build_shard", ends)
    with ray_engine(None, 1) as engine:
        prepare(shard_source, tmp_path / "out", engine=engine)
    assert marker.exists()
    assert contents(tmp_path / "out") == contents(shard_set)


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


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_an_address_without_a_cluster_is_named(form):
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # nobody listens
        address = form.format(free.getsockname()[1])
        message = rf"no Ray cluster at {address}: .*refused"
        with pytest.raises(EnvironmentFailure, match=message), ray_engine(address, 1):
            pass


def test_failures_of_tasks_are_told_apart(monkeypatch):
    ray = pytest.importorskip("ray")
    from ray.exceptions import RayTaskError, WorkerCrashedError

    def outcome(error):
        def get(_):
            raise error

        monkeypatch.setattr(ray, "get", get)
        return _result(7, None)

    with pytest.raises(EnvironmentFailure, match=r"^No space left$"):
        outcome(RayTaskError("f", "traceback", EnvironmentFailure("No space left")))
    with pytest.raises(RuntimeError, match="shard 7 failed in its Ray task: KeyError"):
        outcome(RayTaskError("f", "traceback", KeyError("x")))
    with pytest.raises(EnvironmentFailure, match="Ray could not prepare shard 7"):
        outcome(WorkerCrashedError())


BUSY = 5
"""A shard that another process works on."""


class FakeRay(ModuleType):
    """Ends the tasks in flight one by one, each with the number of its shard for a reference, and counts them."""

    def __init__(self):
        super().__init__("ray")
        self.most, self.cancelled = 0, []

    def remote(self, function):
        mailbox = SimpleNamespace(take=SimpleNamespace(remote=lambda: "events"))
        call = (lambda: mailbox) if function is _Mailbox else lambda plan, number, mailbox: number
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=call))

    def wait(self, refs, timeout):
        self.most = max(self.most, len(refs))
        return refs[-1:], refs[:-1]

    def get(self, ref):
        return [] if ref == "events" else ref != BUSY

    def get_runtime_context(self):
        return SimpleNamespace(get_node_id=lambda: "node")

    def cluster_resources(self):
        return {"CPU": 2.0}

    def cancel(self, ref, force):
        self.cancelled.append(ref)

    def kill(self, actor):
        pass


@pytest.fixture
def fake_ray(monkeypatch):
    ray = FakeRay()
    strategies = ModuleType("ray.util.scheduling_strategies")
    strategies.NodeAffinitySchedulingStrategy = lambda *_, **__: None
    exceptions = ModuleType("ray.exceptions")
    exceptions.RayError = exceptions.RayTaskError = type("RayError", (Exception,), {})
    for module in (ray, strategies, exceptions):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return ray


@pytest.mark.parametrize(("workers", "most"), [(3, 3), (None, 4)])
def test_a_bounded_number_of_tasks_is_in_flight(fake_ray, workers, most, tmp_path):
    """By default twice as many as the cluster has cores."""
    plan = SimpleNamespace(out=tmp_path, only=lambda number: None)
    assert RayEngine(workers).build(plan, range(20), lambda event: None) == [BUSY]
    assert fake_ray.most == most


@pytest.mark.parametrize("fails", [False, True])
def test_sigterm_does_what_it_did_before_ray(fake_ray, fails):
    """Ray sets a handler of its own."""

    def init(*_, **__):
        signal.signal(signal.SIGTERM, lambda number, _: None)
        if fails:
            raise RuntimeError("no cores")

    fake_ray.init, fake_ray.is_initialized, fake_ray.shutdown = init, lambda: False, lambda: None
    before = signal.signal(signal.SIGTERM, ours := lambda number, _: None)
    try:
        with pytest.raises(EnvironmentFailure, match="no cores") if fails else nullcontext(), ray_engine(None, 1):
            assert signal.getsignal(signal.SIGTERM) is ours
        assert signal.getsignal(signal.SIGTERM) is ours
    finally:
        signal.signal(signal.SIGTERM, before)


def test_sigterm_while_ray_starts_has_the_status_of_our_handler(fake_ray):
    def init(*_, **__):
        raise SystemExit(15)  # as Ray's handler does

    def end(number, _):
        raise SystemExit(128 + number)

    fake_ray.init, fake_ray.is_initialized = init, lambda: False
    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(SystemExit) as stopped, ray_engine(None, 1):
            pass
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stopped.value.code == 143


def test_an_interruption_cancels_the_tasks(fake_ray, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(fake_ray, "wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        RayEngine(3).build(SimpleNamespace(out=tmp_path, only=lambda number: None), range(20), lambda event: None)
    assert fake_ray.cancelled == [0, 1, 2]
