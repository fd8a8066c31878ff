"""Shards prepared in processes of this machine: how far ahead it works, and what it leaves when it stops."""

from __future__ import annotations

import os
import threading

import pytest

from reserve.data.prepare.shards.build import ShardBuild
from reserve.data.prepare.shards.engines import local
from reserve.data.prepare.shards.locks import try_lock
from tests.helpers.shard_videos import contents, make_video, prepare

SHARDS = 3


def free_locks(out):
    """The shards that no process has locked."""
    free = []
    for number in range(SHARDS):
        lock = try_lock(out / "work" / f"shard-{number:05d}.lock")
        if lock is not None:
            free.append(number)
            lock.release()
    return free


def test_a_shard_is_locked_when_its_first_video_is_prepared(shard_source, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_WAITING_TO_BE_WRITTEN", 0)
    seen = []

    def on_event(event, _):
        if event.kind in ("started", "written"):
            seen.append((event.kind, event.shard, free_locks(tmp_path)))

    prepare(shard_source, tmp_path, on_event=on_event)
    assert [each for each in seen if each[1] == 2] == [("started", 2, [0, 1]), ("written", 2, [0, 1, 2])]
    assert ("started", 1, [0, 2]) in seen


def test_shards_that_wait_to_be_written_stop_the_preparation(tmp_path, monkeypatch):
    """Else a slow disk would fill with stores."""
    for number in range(8):
        make_video(tmp_path / "videos" / f"{number}.mp4", number)
    may_write, write = threading.Event(), ShardBuild.write
    started = []

    def slow(self):
        assert may_write.wait(60)
        return write(self)

    class Waits(local._LocalBuild):
        def _wait(self, at_most):
            if len(self._writing) > at_most:
                may_write.set()  # it would wait for ever
            super()._wait(at_most)

    def on_event(event, _):
        if event.kind == "started" and not may_write.is_set():
            started.append(event.shard)

    monkeypatch.setattr(ShardBuild, "write", slow)
    monkeypatch.setattr(local, "_LocalBuild", Waits)
    prepare(tmp_path / "videos", tmp_path / "out", videos_per_shard=1, on_event=on_event)
    assert 0 < len(started) <= local._WAITING_TO_BE_WRITTEN + 2


@pytest.mark.parametrize("workers", [0, 1])
def test_an_interruption_unlocks_every_shard_and_keeps_the_stores(shard_source, shard_set, tmp_path, workers):
    def interrupt(event, _):
        if event.kind == "video":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(shard_source, tmp_path, workers=workers, on_event=interrupt)
    assert free_locks(tmp_path) == [0, 1, 2]
    assert any(name.endswith(".safetensors") for name in os.listdir(tmp_path / "work" / "shard-00001")) or workers
    prepare(shard_source, tmp_path)
    assert contents(tmp_path) == contents(shard_set)
