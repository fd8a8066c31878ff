"""Records, settings and manifests: one spelling, checked field by field."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from reserve.data.shards.layout import MANIFEST, SETTINGS
from reserve.data.shards.records import (
    FileRecord,
    ShardRecord,
    SkippedFile,
    VideoRecord,
    canonical,
    read_manifest,
    read_record,
    read_settings,
    write_manifest,
    write_record,
    write_settings,
)
from reserve.errors import BadInput
from tests.helpers.small_shards import make_shard_set, settings

FILE = FileRecord("shard-00003.tar", 10, "0" * 64)
RECORD = ShardRecord(
    3,
    FILE,
    replace(FILE, name="shard-00003.index"),
    (
        VideoRecord(
            "vid\udce9o.mp4",
            "/v/vid\udce9o.mp4",
            "k",
            8,
            72,
            40.5,
            "a.vtt",
            "audio",
            ("late words",),
            "ff00",
            "dali",
            "no",
        ),
    ),
    (SkippedFile("b.mp4", "/v/b.mp4", "k2", "duplicate of a.mp4", "duplicates", "ff01", 3),),
)


def test_a_record_is_read_as_it_was_written(tmp_path):
    written = write_record(tmp_path, RECORD)
    data = (tmp_path / "shard-00003.json").read_bytes()
    assert read_record(data, "shard-00003.json") == RECORD
    assert (written.name, written.bytes) == ("shard-00003.json", len(data))


def test_settings_are_read_as_they_were_written(tmp_path):
    write_settings(tmp_path, settings(5))
    assert read_settings((tmp_path / SETTINGS).read_bytes()) == settings(5)


def test_a_record_of_an_earlier_release_names_no_decoder(tmp_path):
    """Its shard must not be made again."""
    write_record(tmp_path, RECORD)
    data = changed(
        (tmp_path / "shard-00003.json").read_bytes(),
        lambda record: [record["videos"][0].pop(name) for name in ("decoder", "decoder_reason")],
    )
    expected = replace(RECORD, videos=(replace(RECORD.videos[0], decoder="", decoder_reason=""),))
    assert read_record(data, "shard-00003.json") == expected


def changed(data: bytes, change) -> bytes:
    values = json.loads(data)
    change(values)
    return canonical(values).encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.update(number=-1), "number cannot be -1"),
        (lambda record: record.update(number=True), "number cannot be True"),
        (lambda record: record["videos"][0].update(segments=2**63), f"segments cannot be {2**63}"),
        (lambda record: record.update(number="3"), "number cannot be '3'"),
        (lambda record: record.pop("videos"), "has the fields"),
        (lambda record: record.update(other=1), "has the fields"),
        (lambda record: record.update(number=4), "is the record of shard-00004"),
        (lambda record: record["tar"].update(name="../../etc/passwd"), "names '../../etc/passwd' as the file"),
        (lambda record: record["index"].update(name="/tmp/x"), "names '/tmp/x' as the file"),
        (lambda record: record.update(index=None), "a tar or an index without the other"),
        (lambda record: record["videos"][0].update(segments=1.5), "segments cannot be 1.5"),
        (lambda record: record["videos"][0].update(warnings="late"), "warnings cannot be 'late'"),
        (lambda record: record.update(videos={}), "videos cannot be {}"),
        (lambda record: record.update(skipped=[3]), "SkippedFile has the fields"),
    ],
)
def test_a_record_with_a_wrong_field_is_refused(tmp_path, change, message):
    write_record(tmp_path, RECORD)
    data = changed((tmp_path / "shard-00003.json").read_bytes(), change)
    with pytest.raises(BadInput, match=message):
        read_record(data, "shard-00003.json")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"number": 1e999}'])
def test_json_that_is_no_record_is_refused(data):
    for read in (read_settings, read_manifest, lambda data: read_record(data, "shard-00003.json")):
        with pytest.raises(BadInput):
            read(data)


def test_settings_of_another_format_are_refused(tmp_path):
    write_settings(tmp_path, replace(settings(1), format="reserve-shards-9"))
    with pytest.raises(BadInput, match="has the format 'reserve-shards-9', not 'reserve-shards-1'"):
        read_settings((tmp_path / SETTINGS).read_bytes())


def test_the_manifest_counts_what_the_shards_hold(tmp_path):
    manifest = make_shard_set(tmp_path / "set", (3, 0, 2))
    assert read_manifest((tmp_path / "set" / MANIFEST).read_bytes()) == manifest
    assert (manifest.videos, manifest.segments, manifest.words, manifest.seconds) == (5, 40, 360, 200.0)
    files = [tmp_path / "set" / f"shard-0000{shard}.{kind}" for shard in (0, 2) for kind in ("tar", "index")]
    assert manifest.bytes == sum(file.stat().st_size for file in files)
    assert manifest.shards[1].tar is None
    assert not (tmp_path / "set" / "shard-00001.tar").exists()


def test_every_byte_of_a_manifest_counts(tmp_path):
    make_shard_set(tmp_path / "set", (1, 0))
    data = (tmp_path / "set" / MANIFEST).read_bytes()
    for place in range(len(data)):
        for damaged in (data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], data[:place]):
            with pytest.raises(BadInput):
                read_manifest(damaged)


def test_a_manifest_with_a_shard_in_the_wrong_place_is_refused(tmp_path):
    make_shard_set(tmp_path / "set", (1, 1))
    data = changed((tmp_path / "set" / MANIFEST).read_bytes(), lambda values: values["shards"].reverse())
    with pytest.raises(BadInput, match="damaged"):
        read_manifest(data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segments": 41}, "counts 41 segments; its shards have 40"),
        ({"videos": 0}, "counts 0 videos; its shards have 5"),
        ({"shards": ()}, "names no shard"),
    ],
)
def test_a_manifest_whose_counts_do_not_add_up_is_refused(tmp_path, changes, message):
    """Though its digest is right."""
    manifest = make_shard_set(tmp_path / "set", (3, 0, 2))
    write_manifest(tmp_path / "set", replace(manifest, **changes))
    with pytest.raises(BadInput, match=message):
        read_manifest((tmp_path / "set" / MANIFEST).read_bytes())
