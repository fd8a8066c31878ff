"""Bytes of a set from a folder or a URL: the same ones, no others, and errors that name the file."""

from __future__ import annotations

import builtins
import hashlib
import multiprocessing
import os
import pickle
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from reserve.data.shards import remote
from reserve.data.shards.files import LocalFiles, is_url, open_files, user_cache
from reserve.data.shards.read import ShardSet
from reserve.data.shards.records import FileRecord
from reserve.errors import BadInput, DamagedSample, EnvironmentFailure
from tests.helpers.file_server import FileServer
from tests.helpers.small_shards import make_shard_set

CONTENT = bytes(range(256)) * 8
SHA256 = hashlib.sha256(CONTENT).hexdigest()
RECORD = FileRecord("a.tar", len(CONTENT), SHA256)
HOSTILE = ["../secret", "/etc/passwd", "a/b", "..", ".", "", ".hidden", "a\\b", "a\0", "a\n", "é.tar", "x" * 300]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(remote, "FIRST_DELAY", 0.001)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.tar").write_bytes(CONTENT)
    (tmp_path / "secret").write_bytes(b"secret")
    return folder


@pytest.fixture
def memory(folder):
    """The folder as memory://."""
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    system.store.clear()
    for path in folder.iterdir():
        system.pipe(f"/set/{path.name}", path.read_bytes())
    yield system
    system.store.clear()


@pytest.fixture
def server(folder):
    pytest.importorskip("aiohttp")
    return FileServer(folder)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("s3://bucket/set", True),
        ("https://example.org/set", True),
        ("simplecache::s3://bucket/set", True),
        ("file:///a", True),
        ("/a/b", False),
        ("a/b:c", False),
        ("C:/a", False),
    ],
)
def test_urls_are_told_from_folders(where, expected):
    assert is_url(where) is expected


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (250, 260), (2040, 2048), (2040, 3000), (3000, 3001)])
def test_ranges_are_those_of_the_file(folder, memory, server, tmp_path, start, stop):
    with server.running() as url:
        for where in (folder, f"file://{folder}", "memory://set", url):
            files = open_files(where, tmp_path / "cache").pinned([RECORD])
            for each in (files, files, pickle.loads(pickle.dumps(files))):
                assert each.read_range("a.tar", start, stop) == CONTENT[start:stop]
            assert files.path("a.tar").read_bytes() == CONTENT


def test_a_local_folder_needs_no_fsspec(folder, monkeypatch):
    importing = builtins.__import__

    def without_fsspec(name, *rest, **more):
        assert name.partition(".")[0] != "fsspec"
        return importing(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_fsspec)
    files = open_files(folder)
    assert files.read_range("a.tar", 0, 3) == CONTENT[:3]
    assert files.path("a.tar") == folder / "a.tar"


def test_a_file_url_is_not_cached(folder, tmp_path):
    assert isinstance(open_files(f"file://{folder}", tmp_path / "cache"), LocalFiles)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_never_lead_out_of_the_folder(folder, memory, name, tmp_path):
    for files in (
        open_files(folder),
        open_files("memory://set", tmp_path / "cache").pinned([FileRecord(name, 5, SHA256)]),
    ):
        with pytest.raises(BadInput, match="is not the name of a file of a set of shards"):
            files.path(name)
        with pytest.raises(BadInput, match="is not the name of a file of a set of shards"):
            files.read_range(name, 0, 5)
    assert not (tmp_path / "cache").exists()


def test_a_missing_file_is_named(folder, memory, server, tmp_path):
    with pytest.raises(BadInput, match=f"{folder}/b.tar: No such file"):
        open_files(folder).read_range("b.tar", 0, 5)
    with server.running() as url:
        for where in ("memory://set", url):
            files = open_files(where, tmp_path / "cache")
            with pytest.raises(BadInput, match=f"{where}/b.tar: there is no such file"):
                files.path("b.tar")
            with pytest.raises(BadInput, match=f"{where}/b.tar: there is no such file"):
                files.read_range("b.tar", 0, 5)
    assert len(server.requests) == 2


def test_what_is_pinned_is_read_once(server, tmp_path):
    with server.running() as url:
        for _ in range(3):
            files = open_files(url, tmp_path / "cache").pinned([RECORD])
            assert files.read_range("a.tar", 5, 9) == CONTENT[5:9]
            assert files.path("a.tar").read_bytes() == CONTENT
        assert [wanted for _, _, wanted in server.requests].count("bytes=5-8") == 1
        assert len(server.requests) <= 4


def test_what_is_not_pinned_is_read_afresh(server, folder, tmp_path):
    with server.running() as url:
        files = open_files(url, tmp_path / "cache")
        for content in (b"one", b"two"):
            (folder / "manifest.json").write_bytes(content)
            assert files.path("manifest.json").read_bytes() == content
            assert files.read_range("manifest.json", 0, 3) == content


def test_a_changed_file_is_not_taken_from_the_cache(server, folder, tmp_path):
    changed = CONTENT[::-1]
    with server.running() as url:
        old = open_files(url, tmp_path / "cache").pinned([RECORD])
        old.read_range("a.tar", 0, 9)
        old.path("a.tar")
        (folder / "a.tar").write_bytes(changed)
        new = old.pinned([replace(RECORD, sha256=hashlib.sha256(changed).hexdigest())])
        assert new.read_range("a.tar", 0, 9) == changed[:9]
        assert new.path("a.tar").read_bytes() == changed


def test_a_file_with_another_digest_than_its_manifest_says_is_refused(server, tmp_path):
    with server.running() as url:
        files = open_files(url, tmp_path / "cache").pinned([replace(RECORD, sha256="0" * 64)])
        with pytest.raises(
            BadInput, match=f"{url}/a.tar is damaged or of another set: its SHA-256 is {SHA256}, not 00"
        ):
            files.path("a.tar")


def test_a_local_file_is_checked_once_and_when_it_has_changed(folder, monkeypatch):
    index = folder / "a.index"
    index.write_bytes(CONTENT)
    files = open_files(folder).pinned([replace(RECORD, name="a.index")])
    hashed = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: hashed.append(1) or digest(file, name))
    for _ in range(3):
        assert files.path("a.index") == index
    assert len(hashed) == 1
    index.write_bytes(CONTENT[::-1])
    for each in (files, pickle.loads(pickle.dumps(files))):
        with pytest.raises(BadInput, match=f"{index} is damaged or of another set: its SHA-256 is .* not {SHA256}"):
            each.path("a.index")
    index.unlink()
    with pytest.raises(BadInput, match=f"{index}: No such file"):
        files.path("a.index")


def test_no_file_of_a_folder_stays_open(folder):
    """Mixtures of many sets would run out of descriptors."""
    before = len(os.listdir("/proc/self/fd"))
    files = open_files(folder)
    for number in range(30):
        (folder / f"{number}.tar").write_bytes(b"abc")
        assert files.read_range(f"{number}.tar", 1, 3) == b"bc"
    assert len(os.listdir("/proc/self/fd")) <= before


def test_more_than_a_file_has_takes_no_memory(folder):
    assert open_files(folder).read_range("a.tar", 2000, 2**62) == CONTENT[2000:]


def test_a_transfer_that_lost_bytes_is_repeated(memory, tmp_path, monkeypatch):
    files = open_files("memory://set", tmp_path / "cache").pinned([RECORD])
    copying, copies = type(memory).get_file, []

    def lossy(system, path, target, **options):
        copies.append(target)
        copying(system, path, target, **options)
        if len(copies) == 1:
            os.truncate(target, 100)

    monkeypatch.setattr(type(memory), "get_file", lossy)
    assert files.path("a.tar").read_bytes() == CONTENT
    assert len(copies) == 2


def test_passing_errors_are_tried_again(server, tmp_path):
    server.failures = [500, 503, 429]
    with server.running() as url:
        assert open_files(url, tmp_path / "cache").read_range("a.tar", 5, 9) == CONTENT[5:9]
    assert len(server.requests) == 4


def test_lasting_errors_name_the_url_and_the_reason(server, tmp_path):
    server.failures = [503] * 100
    with server.running() as url:
        with pytest.raises(EnvironmentFailure, match=f"{url}/a.tar cannot be read, after 6 attempts: .*503"):
            open_files(url, tmp_path / "cache").read_range("a.tar", 5, 9)
        assert len(server.requests) == 6
    with pytest.raises(EnvironmentFailure, match=f"{url}/a.tar cannot be read, after 6 attempts"):
        open_files(url, tmp_path / "cache").path("a.tar")


def test_a_denied_file_is_not_tried_again(server, tmp_path):
    server.failures = [403]
    with server.running() as url, pytest.raises(BadInput, match=f"{url}/a.tar cannot be read: .*403"):
        open_files(url, tmp_path / "cache").read_range("a.tar", 5, 9)
    assert len(server.requests) == 1


def test_a_server_without_ranges_is_asked_for_whole_files(server, tmp_path, caplog):
    """Such as Python's own."""
    server.ranges = False
    with server.running() as url:
        files = open_files(url, tmp_path / "cache").pinned([RECORD])
        for start in range(0, 2000, 100):
            assert files.read_range("a.tar", start, start + 50) == CONTENT[start : start + 50]
    assert sum(method == "GET" for method, *_ in server.requests) == 2
    assert caplog.text.count("the server sends whole files where ranges are asked for") == 1


def _read_in_a_process(files, name, results):
    results.put(files.read_range(name, 3, 8))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_other_processes_have_connections_of_their_own(server, tmp_path, method):
    context = multiprocessing.get_context(method)
    with server.running() as url:
        files = open_files(url, tmp_path / "cache")
        assert files.read_range("a.tar", 3, 8) == CONTENT[3:8]
        results = context.Queue()
        process = context.Process(target=_read_in_a_process, args=(files, "a.tar", results))
        process.start()
        assert results.get(timeout=600) == CONTENT[3:8]
        process.join()


def test_unknown_urls_and_missing_drivers_are_named(monkeypatch):
    with pytest.raises(ValueError, match=r"^nothing://a/b: Protocol not known: nothing"):
        open_files("nothing://a/b")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ImportError, match=r"^s3://a/b: .*s3fs"):
        open_files("s3://a/b")


@pytest.mark.parametrize("url", ["https://a/b?token=c", "http://a/b#c"])
def test_a_url_with_a_query_is_no_folder(url):
    with pytest.raises(ValueError, match=r"must end in its path, without a query"):
        open_files(url)


def test_an_archive_is_a_folder_and_one_that_is_not_there_is_named(folder, tmp_path):
    pytest.importorskip("fsspec")
    with zipfile.ZipFile(tmp_path / "a?b.zip", "w") as archive:
        archive.write(folder / "a.tar", "set/a.tar")
    files = open_files(f"zip://set::file://{tmp_path}/a?b.zip", tmp_path / "cache").pinned([RECORD])
    assert pickle.loads(pickle.dumps(files)).read_range("a.tar", 3, 9) == CONTENT[3:9]
    with pytest.raises(BadInput, match=rf"zip://set::{tmp_path}/b.zip cannot be opened: FileNotFoundError"):
        open_files(f"zip://set::{tmp_path}/b.zip")


def test_the_default_cache_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "reserve" / "shards"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache() == tmp_path / ".cache" / "reserve" / "shards"


@pytest.mark.parametrize("ranges", [True, False])
def test_a_set_at_a_url_is_the_set_in_the_folder(tmp_path, ranges):
    pytest.importorskip("aiohttp")
    make_shard_set(tmp_path / "videos", (2, 1), 6)
    local = ShardSet.open(tmp_path / "videos")
    with FileServer(tmp_path / "videos", ranges=ranges).running() as url:
        distant = ShardSet.open(open_files(url, tmp_path / "cache"))
        assert distant.manifest == local.manifest
        for part, other in zip(distant.parts, local.parts, strict=True):
            one, two = pickle.loads(pickle.dumps(part)).open(), other.open()
            assert one.texts(0) == two.texts(0)
            found, expected = one.load(0, 1, 5), two.load(0, 1, 5)
            assert (found.frames, found.words) == (expected.frames, expected.words)
            np.testing.assert_array_equal(found.log_mel, expected.log_mel)


def test_a_vanished_shard_and_a_damaged_sample_at_a_url(tmp_path):
    pytest.importorskip("aiohttp")
    make_shard_set(tmp_path / "videos", (2, 1), 6)
    with FileServer(tmp_path / "videos").running() as url:
        first, second = (part.open() for part in ShardSet.open(open_files(url, tmp_path / "cache")).parts)
        tar = tmp_path / "videos" / "shard-00000.tar"
        data = bytearray(tar.read_bytes())
        data[3000] ^= 1
        tar.write_bytes(data)
        with pytest.raises(DamagedSample, match=f"{url}/shard-00000.tar: video-0.mp4: segment 0 is damaged"):
            first.load(0, 0, 2)
        (tmp_path / "videos" / "shard-00001.tar").unlink()
        with pytest.raises(BadInput, match=f"{url}/shard-00001.tar: there is no such file") as caught:
            second.load(0, 0, 2)
        assert not isinstance(caught.value, DamagedSample)


@pytest.mark.parametrize("ranges", [True, False])
def test_damage_that_was_cached_is_mended_with_the_file(tmp_path, ranges):
    pytest.importorskip("aiohttp")
    make_shard_set(tmp_path / "videos", (1,), 4)
    tar = tmp_path / "videos" / "shard-00000.tar"
    whole = tar.read_bytes()
    with FileServer(tmp_path / "videos", ranges=ranges).running() as url:
        (part,) = ShardSet.open(open_files(url, tmp_path / "cache")).parts
        shard = part.open()
        if ranges:
            tar.write_bytes(bytes(len(whole)))
            for _ in range(2):
                with pytest.raises(DamagedSample, match="segment 0 is damaged"):
                    shard.load(0, 0, 2)
            tar.write_bytes(whole)
        else:
            shard.load(0, 0, 1)
            shard.load(0, 1, 2)
            for copy in (tmp_path / "cache").rglob("*.file"):
                if copy.stat().st_size == len(whole):
                    copy.write_bytes(bytes(len(whole)))
        assert len(shard.load(0, 0, 2)) == 2
