"""Shards as files: what other readers find in them, and what a crash leaves."""

from __future__ import annotations

import hashlib
import json
import os
import random
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reserve.data.shards.files import LocalFiles
from reserve.data.shards.layout import sample_key
from reserve.data.shards.pieces import ShardPiece
from reserve.data.shards.read import Shard
from reserve.data.shards.records import SkippedFile, read_record
from reserve.data.shards.write import write_shard
from reserve.data.store import load_segments, save_segments
from reserve.data.types import Word
from reserve.errors import BadInput
from tests.helpers.small_shards import make_shard_set, store_piece, with_sound
from tests.helpers.small_stores import DATA, make_segments, make_stores


def write(folder, stores, **options):
    return write_shard(folder, 0, [store_piece(store) for store in stores], (), **{"sound": "log_mel"} | options)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def stores(tmp_path):
    (tmp_path / "stores").mkdir()
    return make_stores(tmp_path / "stores", 3, 5)


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.mark.parametrize("sound", ["log_mel", "flac"])
def test_a_plain_webdataset_reader_opens_a_set(tmp_path, sound):
    wds = pytest.importorskip("webdataset", reason="webdataset is a dependency of the tests only")
    make_shard_set(tmp_path / "set", (2, 0, 1), 4, sound)
    tars = sorted(map(str, (tmp_path / "set").glob("shard-*.tar")))
    samples = list(wds.WebDataset(tars, shardshuffle=False).decode("pil"))
    assert len(samples) == 12
    first = samples[0]
    stored = load_segments(tmp_path / "set-stores" / "video-0.safetensors")
    assert first["__key__"] == sample_key("video-0.mp4", 0)
    assert first["jpg"].size == (64, 36)
    assert [word for word, _, _ in first["json"]["words"]] == [word.text for word in stored.words[0]]
    assert first["json"]["metadata"] == {"title": "title 0", "description": "a description", "tags": ["tag"]}
    if sound == "log_mel":
        np.testing.assert_array_equal(first["npy"], stored.log_mel[0])
    else:
        assert first["flac"][:4] == b"fLaC"


def test_tarfile_reads_a_shard(out, stores):
    write(out, stores)
    with tarfile.open(out / "shard-00000.tar") as tar:
        members = tar.getmembers()
        assert [member.name.partition(".")[2] for member in members] == ["jpg", "npy", "json"] * 15
        text = json.load(tar.extractfile(members[2 + 3 * 6]))
    assert (text["video_id"], text["segment"], text["segments"], text["start"]) == ("video-1.mp4", 1, 5, 5.0)


def test_the_record_has_the_sizes_and_digests_of_the_files(out, stores):
    record = write(out, stores)
    for file in (record.tar, record.index):
        data = (out / file.name).read_bytes()
        assert (file.bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert record.num_segments == 15


def test_equal_videos_make_equal_bytes(tmp_path, out, stores):
    write(out, stores)
    (tmp_path / "again").mkdir()
    write(tmp_path / "again", stores)
    assert contents(out) == contents(tmp_path / "again")


def test_videos_of_an_old_shard_are_copied(tmp_path, out, stores):
    """Written again from itself, without one video and with another one, a shard is what it would be from stores."""
    record = write(out, stores[:2])
    old = Shard(LocalFiles(out), 0, DATA)
    kept = ShardPiece(record.videos[1], old, 1)
    for folder in ("copied", "fresh"):
        (tmp_path / folder).mkdir()
    write_shard(tmp_path / "copied", 0, [kept, store_piece(stores[2])], (), sound="log_mel")
    write(tmp_path / "fresh", stores[1:])
    assert contents(tmp_path / "copied") == contents(tmp_path / "fresh")


def test_a_shard_can_be_written_over_the_one_it_is_copied_from(out, stores):
    record = write(out, stores)
    old = Shard(LocalFiles(out), 0, DATA)
    pieces = [ShardPiece(record.videos[place], old, place) for place in (0, 2)]
    write_shard(
        out,
        0,
        pieces,
        (SkippedFile("video-1.mp4", "f", "k", "duplicate of video-0.mp4", "duplicates"),),
        sound="log_mel",
    )
    new = Shard(LocalFiles(out), 0, DATA)
    assert [new.video_id(video) for video in (0, 1)] == ["video-0.mp4", "video-2.mp4"]
    assert new.load(1, 0, 5).words == load_segments(stores[2]).words


def test_sound_of_another_kind_is_refused(out, stores):
    with pytest.raises(BadInput, match="prepared without the sound itself"):
        write(out, stores, sound="flac")
    record = write(out, stores)
    piece = ShardPiece(record.videos[0], Shard(LocalFiles(out), 0, DATA), 0)
    with pytest.raises(BadInput, match="holds sound as log_mel, not as flac"):
        write_shard(out, 1, [piece], (), sound="flac")


def test_flac_shards_hold_the_sound_and_no_spectrogram(out, stores):
    for store in stores:
        save_segments(with_sound(load_segments(store)), store)
    write(out, stores, sound="flac")
    with tarfile.open(out / "shard-00000.tar") as tar:
        assert {name.partition(".")[2] for name in tar.getnames()} == {"jpg", "flac", "json"}
    assert Shard(LocalFiles(out), 0, DATA).load(0, 1, 3).sound == load_segments(stores[0], 1, 3).sound


def test_a_shard_without_videos_has_a_record_only(out, stores):
    write(out, stores)
    write_shard(out, 0, [], (SkippedFile("a", "f", "k", "no words in it"),), sound="log_mel")
    assert contents(out).keys() == {"shard-00000.json"}


def test_a_crash_while_a_shard_becomes_empty_leaves_no_files_beside_the_new_record(out, stores, monkeypatch):
    write(out, stores)
    unlink = Path.unlink

    def crashes(path, missing_ok=False):
        if path.suffix == ".tar":
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", crashes)
    with pytest.raises(KeyboardInterrupt):
        write_shard(out, 0, [], (SkippedFile("a", "f", "k", "no words in it"),), sound="log_mel")
    record = read_record((out / "shard-00000.json").read_bytes(), "shard-00000.json")
    assert record.tar is not None or not (out / "shard-00000.tar").exists()


def test_a_video_with_other_segments_than_its_record_leaves_the_old_shard(out, stores):
    write(out, stores)
    before = contents(out)
    piece = store_piece(stores[0])
    for count in (4, 6):
        wrong = replace(piece, record=replace(piece.record, segments=count))
        with pytest.raises((BadInput, IndexError)):
            write_shard(out, 0, [wrong, wrong], (), sound="log_mel")
        assert contents(out).keys() == before.keys()
    wrong = replace(piece, record=replace(piece.record, segments=0))
    with pytest.raises(BadInput, match="has 0 segments"):
        write_shard(out, 0, [wrong], (), sound="log_mel")
    assert contents(out) == before


def test_a_failure_at_any_disk_operation_leaves_no_half_file(out, stores, monkeypatch):
    """Whatever fails, a file under its name is whole: it is the old one or the new one."""
    write(out, stores[:1])
    old = contents(out)
    write(out, stores)
    new = contents(out)
    operations = ("replace", "fsync", "open")
    for fails_at in range(40):
        for name, data in old.items():
            (out / name).write_bytes(data)
        count = iter(range(10**6))
        with monkeypatch.context() as patch:
            for operation in operations:
                patch.setattr(os, operation, _failing(getattr(os, operation), count, fails_at))
            try:
                write(out, stores)
            except OSError:
                pass
            else:
                break
        found = contents(out)
        assert found.keys() == old.keys()
        assert all(data in (old[name], new[name]) for name, data in found.items())
        # The record comes last: with the new one, the files are the new ones.
        assert found["shard-00000.json"] == old["shard-00000.json"] or found == new
    else:
        pytest.fail("every write failed")
    assert fails_at > 3


def _failing(operation, count, fails_at):
    def call(*args, **options):
        if next(count) == fails_at:
            raise OSError(28, "No space left on device")
        return operation(*args, **options)

    return call


def test_random_videos_come_back(tmp_path, out):
    rng = random.Random(0)
    stores = [tmp_path / f"{video}.safetensors" for video in range(6)]
    for video, store in enumerate(stores):
        count = rng.randint(1, 9)
        save_segments(make_segments(video, count, first_number=10 * video, name=f"{video}.mp4"), store)
    write(out, stores)
    shard = Shard(LocalFiles(out), 0, DATA)
    assert shard.segment_counts().tolist() == [len(load_segments(store)) for store in stores]
    for video, store in enumerate(stores):
        total = len(load_segments(store))
        start = rng.randrange(total)
        stop = rng.randint(start + 1, total)
        found, stored = shard.load(video, start, stop), load_segments(store, start, stop)
        assert (found.frames, found.words, found.metadata) == (stored.frames, stored.words, stored.metadata)
        np.testing.assert_array_equal(found.log_mel, stored.log_mel)
        np.testing.assert_array_equal(found.start, stored.start)


def test_characters_that_no_encoding_has(tmp_path, out):
    """JSON transcripts can hold halves of surrogate pairs, and names of files bytes that are not UTF-8."""
    segments = replace(make_segments(0, 2, first_number=0), video_id="name \udcff.mp4")
    segments.words[1] = [Word("half \ud83d", 0.0, 0.1), Word("\udc80", 1.0, 2.0)]
    save_segments(segments, tmp_path / "a.safetensors")
    write(out, [tmp_path / "a.safetensors"])
    shard = Shard(LocalFiles(out), 0, DATA)
    assert shard.video_id(0) == "name \udcff.mp4"
    assert shard.texts(0)[1] == "half \ud83d \udc80"
    assert shard.load(0).words == segments.words
