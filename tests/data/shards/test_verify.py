"""Verification finds every kind of fault of a set, names it, and finds nothing in a whole one."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise

import numpy as np
import pytest

from reserve.data.shards.files import LocalFiles
from reserve.data.shards.index import IndexBuilder, ShardIndex
from reserve.data.shards.layout import MANIFEST, SETTINGS, sample_key
from reserve.data.shards.manifest import finish_set, make_manifest
from reserve.data.shards.records import (
    FileRecord,
    SkippedFile,
    read_record,
    write_manifest,
    write_record,
    write_settings,
)
from reserve.data.shards.verify import verify_shards
from reserve.errors import BadInput
from tests.helpers.small_shards import make_shard, make_shard_set, settings
from tests.helpers.small_stores import make_stores


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify") / "set"
    make_shard_set(folder, (2, 0, 1), 5)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


def faults_of(folder, **options):
    found = []
    outcome = verify_shards(folder, on_fault=found.append, **{"workers": 0} | options)
    assert outcome.faults == len(found)
    return [(fault.file, fault.what) for fault in found]


def change(path, start, data):
    content = bytearray(path.read_bytes())
    content[start : start + len(data)] = data
    path.write_bytes(content)


@pytest.mark.parametrize("sound", ["log_mel", "flac"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_whole_set_has_no_fault(tmp_path, sound, workers):
    make_shard_set(tmp_path / "set", (2, 0, 1), 3, sound)
    outcome = verify_shards(tmp_path / "set", workers=workers, on_fault=lambda fault: pytest.fail(str(fault)))
    assert (outcome.shards, outcome.counts.videos, outcome.counts.segments, outcome.unfinished) == (3, 3, 9, None)
    assert outcome.bytes_read == sum(path.stat().st_size for path in (tmp_path / "set").iterdir())


def test_every_flipped_byte_is_found(folder):
    rng = np.random.default_rng(0)
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for place in {0, len(content) - 1, *rng.integers(len(content), size=12).tolist()}:
            change(path, place, bytes([content[place] ^ 1 << int(rng.integers(8))]))
            assert path.name in {file for file, _ in faults_of(folder)}, (path.name, place)
            path.write_bytes(content)
    assert faults_of(folder) == []


def test_damaged_samples_are_named_with_their_part(folder):
    tar = folder / "shard-00000.tar"
    content = tar.read_bytes()
    jpeg = content.index(b"\xff\xd8\xff")
    change(tar, jpeg + 99, bytes([content[jpeg + 99] ^ 4]))
    json = content.rindex(b'"video_id"')
    change(tar, json, b"'")
    first, last = sample_key("video-0.mp4", 0), sample_key("video-1.mp4", 4)
    assert faults_of(folder) == [
        (tar.name, f"segment 0 of video-0.mp4 ({first}) is damaged: the picture, at its byte 99"),
        (tar.name, f"segment 4 of video-1.mp4 ({last}) is damaged: the text, at its byte 1"),
    ]


@pytest.mark.parametrize("kept", [0, 1, 100_000, -1100, -1])
def test_a_cut_tar_is_found(folder, kept):
    tar = folder / "shard-00000.tar"
    tar.write_bytes(tar.read_bytes()[:kept])
    ((file, what),) = faults_of(folder)
    assert file == tar.name
    expected = {
        0: "empty file",
        -1: "its end is damaged or cut short",
        -1100: "the last 1 segments of video-1.mp4 are gone",
    }
    assert expected.get(kept, "cut short after") in what


def test_more_behind_the_end_is_found(folder):
    with (folder / "shard-00002.tar").open("ab") as file:
        file.write(b"x")
    assert [file for file, _ in faults_of(folder)] == ["shard-00002.tar"]


def test_a_damaged_index_leaves_the_tar_checked(folder):
    index, tar = folder / "shard-00000.index", folder / "shard-00000.tar"
    words = index.read_bytes().rindex(b" ")
    change(index, words, b"_")
    assert faults_of(folder) == [(index.name, "damaged: the words of video-1.mp4")]
    change(index, index.read_bytes().index(b"video-0"), b"v")
    change(index, 9, b"xx")
    change(tar, 3 * 512 + 7, b"!!")
    files = [file for file, _ in faults_of(folder)]
    assert files == [index.name, tar.name]


def test_a_tar_that_does_not_fit_its_index_is_found(folder, tmp_path):
    """Both whole, from different sets, with records and manifest to match."""
    (tmp_path / "others").mkdir()
    other = make_stores(tmp_path / "others", 3, 6)[1:]
    make_shard(tmp_path / "others", 0, other)
    for name in ("shard-00000.tar", "shard-00000.json"):
        shutil.copy(tmp_path / "others" / name, folder / name)
    finish_set(folder)
    found = faults_of(folder)
    assert ("shard-00000.index", "it has other videos, or other counts of their segments, than the record") in found
    assert all(file == "shard-00000.index" for file, _ in found)


def test_samples_that_changed_places_are_found(folder):
    """With a checksum and an index of a tar that another program wrote."""
    index, tar = ShardIndex(folder / "shard-00002.index"), folder / "shard-00002.tar"
    starts = index.sample_start.astype(int).tolist()
    content = tar.read_bytes()
    pieces = [content[a:b] for a, b in pairwise(starts)]
    order = [1, 0, 2, 3, 4]
    builder, texts = IndexBuilder("log_mel"), index.texts(0)
    for place in order:
        builder.add(tuple(index.member_sizes[place].tolist()), int(index.sample_crc[place]), texts[place])
    builder.end_video("video-2.mp4")
    tar.write_bytes(b"".join(pieces[place] for place in order) + content[starts[-1] :])
    (folder / "shard-00002.index").write_bytes(builder.data())
    rehash(folder, 2)
    assert [(file, what[:20]) for file, what in faults_of(folder)] == [(tar.name, "holds another sample")] * 2


def rehash(folder, number):
    """Makes the record and the manifest fit a shard's files."""
    name = f"shard-{number:05d}"
    files = {}
    for suffix in ("tar", "index"):
        data = (folder / f"{name}.{suffix}").read_bytes()
        files[suffix] = FileRecord(f"{name}.{suffix}", len(data), sha256(data).hexdigest())
    record = read_record((folder / f"{name}.json").read_bytes(), f"{name}.json")
    write_record(folder, replace(record, **files))
    finish_set(folder)


@pytest.mark.parametrize("name", ["shard-00000.tar", "shard-00002.index", "shard-00001.json", SETTINGS])
def test_missing_files_are_named(folder, name):
    (folder / name).unlink()
    assert name in {file for file, _ in faults_of(folder)}


def test_foreign_files_are_named(folder):
    for name in ("notes.txt", "shard-00001.tar", "shard-00003.json", ".shard-00000.tar.12-3.partial"):
        (folder / name).write_bytes(b"x")
    (folder / "folder").mkdir()
    found = faults_of(folder)
    assert {what for _, what in found} == {"not a file of this set"}
    assert len(found) == 5


def test_a_pipe_does_not_block(folder):
    for name in ("shard-00000.tar", "shard-00000.index", "shard-00002.json"):
        (folder / name).unlink()
        os.mkfifo(folder / name)
    assert all(what.startswith("not a regular file") for file, what in faults_of(folder))


def test_a_record_that_disagrees_with_the_manifest_is_found(folder):
    record = read_record((folder / "shard-00001.json").read_bytes(), "shard-00001.json")
    manifest = make_manifest(folder)
    write_record(folder, replace(record, skipped=(SkippedFile("a", "/a", "key", "broken"),)))
    assert faults_of(folder) == [("shard-00001.json", "damaged: its bytes are not those that manifest.json names")]
    fixed = list(make_manifest(folder).shards)
    fixed[1] = replace(fixed[1], skipped=0)
    write_manifest(folder, replace(manifest, shards=tuple(fixed)))
    assert faults_of(folder) == [("shard-00001.json", "disagrees with manifest.json about skipped")]
    write_manifest(folder, replace(make_manifest(folder), words=7))
    assert faults_of(folder) == [(MANIFEST, "its words are 7, those of the records 135")]


def test_a_set_without_a_manifest_is_checked_as_far_as_it_is_there(folder):
    (folder / MANIFEST).unlink()
    (folder / "work").mkdir()
    for suffix in ("tar", "index"):  # A record comes last.
        shutil.copy(folder / f"shard-00000.{suffix}", folder / f"shard-00001.{suffix}")
    (folder / "shard-00000.json").unlink()
    outcome = verify_shards(folder, workers=0, on_fault=lambda fault: pytest.fail(str(fault)))
    assert (outcome.shards, outcome.unfinished, outcome.counts.videos) == (2, 1, 1)
    change(folder / "shard-00002.tar", 600, b"?!")
    (folder / "shard-00007.tar").write_bytes(b"")
    assert [file for file, _ in faults_of(folder)] == ["shard-00002.tar", "shard-00007.tar"]


def test_a_lost_manifest_is_a_fault(folder):
    """While a set is being prepared there is none, but its scratch folder is there."""
    (folder / MANIFEST).unlink()
    assert faults_of(folder) == [(MANIFEST, "is not there, and without work nothing is under way that would write it")]
    (folder / "work").mkdir()
    assert faults_of(folder) == []


def test_hostile_settings_do_not_count_for_ever(folder):
    (folder / MANIFEST).unlink()
    write_settings(folder, settings(10**18))
    assert verify_shards(folder, workers=0).unfinished == 10**18 - 3


@pytest.mark.parametrize("name", ["gone", "empty"])
def test_what_is_no_set(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="not a set of shards"):
        verify_shards(tmp_path / name)


@pytest.fixture
def url(folder):
    """The set in fsspec's file system in memory."""
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    for path in folder.iterdir():
        system.pipe(f"/verify/{path.name}", path.read_bytes())
    yield "memory://verify"
    system.rm("/verify", recursive=True)


def test_a_set_at_a_url(url, monkeypatch, tmp_path):
    import fsspec

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert faults_of(url) == []
    system = fsspec.filesystem("memory")
    content = bytearray(system.cat("/verify/shard-00000.tar"))
    content[600] ^= 1
    system.pipe("/verify/shard-00000.tar", bytes(content))
    system.rm("/verify/shard-00002.index")
    assert [file for file, _ in faults_of(url)] == ["shard-00000.tar", "shard-00002.index"]
    system.rm("/verify/manifest.json")
    with pytest.raises(BadInput, match="verify a local copy"):
        verify_shards(url, workers=0)


def test_a_server_that_refuses_ranges_after_the_end(folder):
    class Refusing(LocalFiles):
        def read_range(self, name, start, stop):
            if not (data := super().read_range(name, start, stop)):
                raise BadInput("416")
            return data

    assert faults_of(Refusing(folder)) == []
    tar = folder / "shard-00000.tar"
    tar.write_bytes(tar.read_bytes()[:70_000])
    assert [what for _, what in faults_of(Refusing(folder))] == [
        "cut short after 70000 bytes (416): the last 3 segments of video-0.mp4 and all 1 videos behind it are gone"
    ]
