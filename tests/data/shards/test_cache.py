"""A cache that stays within its bound, notices damage, and is shared by processes that may be killed."""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from reserve.data.shards import cache as cache_module
from reserve.data.shards.cache import ByteCache
from reserve.errors import EnvironmentFailure


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix in (".range", ".file")]


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in entries(folder))


def age(path: Path, seconds: float) -> None:
    used = time.time() - seconds
    os.utime(path, (used, used))


def test_what_is_added_is_found(tmp_path):
    cache = ByteCache(tmp_path, 10_000)
    assert cache.range("a") is None
    cache.add_range("a", b"one")
    cache.add_range("b", b"")
    for each in (cache, ByteCache(tmp_path, 10_000), pickle.loads(pickle.dumps(cache))):
        assert (each.range("a"), each.range("b"), each.range("c")) == (b"one", b"", None)


def test_a_whole_file_is_found_by_its_digest(tmp_path):
    cache = ByteCache(tmp_path, 10_000)
    digest = hashlib.sha256(b"content").hexdigest()
    assert cache.file(digest) is None
    path = cache.add_file(7, lambda path: path.write_bytes(b"content"))
    assert cache.file(digest) == path
    assert path.read_bytes() == b"content"


def test_the_entries_used_longest_ago_are_removed(tmp_path):
    cache = ByteCache(tmp_path, 5 * 132)
    for number in range(5):
        cache.add_range(str(number), bytes([number]) * 100)
        (newest,) = [path for path in entries(tmp_path) if path.read_bytes().endswith(bytes([number]) * 100)]
        age(newest, 100 - number)
    assert cache.range("0") is not None
    cache.add_range("5", bytes([5]) * 100)
    assert cache.range("0") is not None
    assert cache.range("1") is None
    assert cache.range("5") is not None


def test_the_bound_holds_whatever_is_added(tmp_path):
    cache = ByteCache(tmp_path, 3000)
    for number in range(200):
        cache.add_range(str(number), bytes(number * 7 % 900))
        assert size(tmp_path) <= 3000
    assert size(tmp_path) > 1000


def test_what_is_being_written_counts(tmp_path):
    """Also for others that count the bytes on the disk, where it is not yet."""
    cache = ByteCache(tmp_path, 1000)

    def write(path):
        for number in range(20):
            ByteCache(tmp_path, 1000).add_range(str(number), bytes(100))
        path.write_bytes(bytes(400))

    cache.add_file(400, write)
    assert 800 < size(tmp_path) <= 1000
    assert not list(tmp_path.rglob("*.partial"))


def test_a_smaller_bound_takes_effect(tmp_path):
    for number in range(20):
        ByteCache(tmp_path, 10_000).add_range(str(number), bytes(100))
    ByteCache(tmp_path, 1000).add_range("last", bytes(100))
    assert size(tmp_path) <= 1000
    assert ByteCache(tmp_path, 1000).range("last") == bytes(100)


def test_what_exceeds_the_bound_by_itself_is_not_kept(tmp_path):
    cache = ByteCache(tmp_path, 100)
    cache.add_range("a", bytes(101))
    assert cache.range("a") is None
    with pytest.raises(
        EnvironmentFailure, match=r"101 bytes does not fit in the cache .* of 100 bytes: raise train.shard_cache_gb"
    ):
        cache.add_file(101, lambda path: path.write_bytes(bytes(101)))


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: b"", lambda data: data[:40] + b"?" + data[41:]]
)
def test_a_damaged_entry_is_removed(tmp_path, damage):
    cache = ByteCache(tmp_path, 10_000)
    cache.add_range("a", bytes(50))
    whole = cache.add_file(50, lambda path: path.write_bytes(bytes(range(50))))
    for path in entries(tmp_path):
        path.write_bytes(damage(path.read_bytes()))
    assert cache.range("a") is None
    assert cache.file(whole.stem) is None
    assert entries(tmp_path) == []
    cache.add_range("a", bytes(50))
    assert cache.range("a") == bytes(50)


@pytest.mark.parametrize("text", ["", "1", "not a number\n", "-5\n", "999999999999\n"])
def test_a_damaged_count_is_made_afresh(tmp_path, text):
    cache = ByteCache(tmp_path, 1000)
    for number in range(20):
        cache.add_range(str(number), bytes(200))
        (tmp_path / "total").write_text(text)
    cache.add_range("last", bytes(200))
    assert cache.range("last") is not None
    assert size(tmp_path) <= 1000


def test_a_file_that_was_just_handed_out_is_kept(tmp_path, monkeypatch):
    """Its reader has yet to open it."""
    monkeypatch.setattr(cache_module, "_HANDED_OUT", 3600.0)
    cache = ByteCache(tmp_path, 1000)
    path = cache.add_file(600, lambda path: path.write_bytes(bytes(600)))
    cache.add_range("a", bytes(500))
    assert path.exists()
    monkeypatch.setattr(cache_module, "_HANDED_OUT", 0.0)
    cache.add_range("b", bytes(500))
    assert not path.exists()


def test_a_new_file_counts_as_just_handed_out_however_long_its_digest_took(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "_HANDED_OUT", 3600.0)
    cache = ByteCache(tmp_path, 1000)

    def write(path):
        path.write_bytes(bytes(600))
        age(path, 7200)

    path = cache.add_file(600, write)
    cache.add_range("a", bytes(500))
    assert path.exists()


def test_entries_of_a_read_only_cache_are_used(tmp_path, monkeypatch):
    cache = ByteCache(tmp_path, 1000)
    cache.add_range("a", b"abc")
    path = cache.add_file(3, lambda copy: copy.write_bytes(b"def"))

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuse)
    assert cache.range("a") == b"abc"
    assert cache.file(path.stem) == path


def test_what_processes_elsewhere_are_writing_is_kept(tmp_path):
    """A container does not see the processes of others that share the cache."""
    cache = ByteCache(tmp_path, 1000)
    (tmp_path / "ab").mkdir()
    elsewhere, abandoned = (tmp_path / "ab" / f".{name}.range.{2**22 + 1}-1.partial" for name in ("a", "b"))
    for path in (elsewhere, abandoned):
        path.write_bytes(b"part")
    os.utime(abandoned, (1, 1))
    for key in range(30):
        cache.add_range(str(key), bytes(100))
    assert elsewhere.exists()
    assert not abandoned.exists()
    assert size(tmp_path) <= 1000


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EnvironmentFailure, match=f"the cache {tmp_path / 'file'} cannot be written"):
        ByteCache(tmp_path / "file", 1000).add_range("a", b"")


SHARE = """
import random, sys
from pathlib import Path
from reserve.data.shards.cache import ByteCache
rng, cache = random.Random(sys.argv[2]), ByteCache(Path(sys.argv[1]), 20_000)
for count in range(int(sys.argv[3])):
    number = rng.randrange(60)
    content = bytes([number]) * (200 + 20 * number)
    found = cache.range(str(number))
    if found is None:
        cache.add_range(str(number), content)
    elif found != content:
        sys.exit(f"entry {number} holds {found[:20]}")
    if count == 0:
        print("started", flush=True)
"""


def start(folder: Path, seed: int, count: int) -> subprocess.Popen:
    command = [sys.executable, "-c", SHARE, str(folder), str(seed), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3])


def test_processes_share_it(tmp_path):
    running = [start(tmp_path, seed, 300) for seed in range(3)]
    while any(process.poll() is None for process in running):
        # Nothing is removed meanwhile, so what is found was there at one time.
        with FileLock(tmp_path / "lock"):
            assert size(tmp_path) <= 20_000
        time.sleep(0.1)
    assert [process.wait() for process in running] == [0, 0, 0]
    assert size(tmp_path) <= 20_000


def test_processes_that_are_killed_leave_it_usable(tmp_path):
    for seed in range(5):
        process = start(tmp_path, seed, 10**6)
        assert process.stdout.readline() == "started\n"
        time.sleep(0.05 * seed)
        process.send_signal(signal.SIGKILL)
        process.wait()
    finished = start(tmp_path, 9, 300)
    assert finished.wait() == 0
    assert size(tmp_path) <= 20_000
    assert size(tmp_path) > 5_000
