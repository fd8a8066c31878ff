"""Prepared examples are made once, and again where their file is damaged."""

from __future__ import annotations

import logging
import os

import pytest

from reserve.tasks.record_cache import RecordCache

PARTS = {"a.jpg": bytes(range(256)) * 4, "record.json": b"{}", "empty": b""}


def never():
    raise AssertionError("it must not be made again")


def test_an_example_is_made_once(tmp_path):
    cache = RecordCache(tmp_path, "1")

    assert cache.get("x", lambda: PARTS) == PARTS
    assert RecordCache(tmp_path, "1").get("x", never) == PARTS
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [cache.path("x")]


def test_keys_and_versions_are_apart(tmp_path):
    cache = RecordCache(tmp_path, "1")
    cache.get("x", lambda: PARTS)

    assert cache.get("y", lambda: {"b": b"2"}) == {"b": b"2"}
    assert RecordCache(tmp_path, "2").get("x", lambda: {"c": b"3"}) == {"c": b"3"}
    assert cache.get("x", never) == PARTS


def test_any_key_is_a_file_name(tmp_path):
    cache = RecordCache(tmp_path / "deep" / "folder", "1")

    for key in ("../up", "a/b", "\udcff", "x" * 5000):
        cache.get(key, lambda: PARTS)
        assert cache.get(key, never) == PARTS
    assert all(path.is_relative_to(tmp_path / "deep" / "folder") for path in tmp_path.rglob("*.zip"))


@pytest.mark.parametrize("bits", [0x01, 0x55, 0xFF])
def test_a_changed_byte_never_passes(tmp_path, bits):
    cache = RecordCache(tmp_path, "1")
    cache.get("x", lambda: PARTS)
    stored = cache.path("x").read_bytes()
    # The headers and the list of parts at the end, and a sample of the content.
    for where in (*range(0, len(stored), 37), *range(len(stored) - 300, len(stored))):
        content = bytearray(stored)
        content[where] ^= bits
        cache.path("x").write_bytes(content)
        # What a reader of zip files ignores, such as a time, may change.
        assert cache.get("x", lambda: PARTS) == PARTS, where


@pytest.mark.parametrize("length", [0, 1, 20, 600, -1])
def test_a_cut_file_is_made_again(tmp_path, length, caplog):
    cache = RecordCache(tmp_path, "1")
    cache.get("x", lambda: PARTS)
    cache.path("x").write_bytes(cache.path("x").read_bytes()[:length])

    with caplog.at_level(logging.WARNING):
        assert cache.get("x", lambda: {"new": b"1"}) == {"new": b"1"}

    assert "damaged" in caplog.text
    assert cache.get("x", never) == {"new": b"1"}


def test_an_example_that_cannot_be_made_leaves_nothing(tmp_path):
    def fail():
        raise ValueError("no picture")

    with pytest.raises(ValueError, match="no picture"):
        RecordCache(tmp_path, "1").get("x", fail)
    assert not list(tmp_path.rglob("*"))


def test_an_example_is_made_again_where_its_source_has_changed(tmp_path):
    source, absent, cache = tmp_path / "clip", tmp_path / "none", RecordCache(tmp_path / "cache", "1")
    source.write_bytes(b"one")
    assert cache.get("x", lambda: {"a": b"1"}, [source, absent]) == {"a": b"1"}
    assert cache.get("x", never, [source, absent]) == {"a": b"1"}
    source.write_bytes(b"two!")
    assert cache.get("x", lambda: {"a": b"2"}, [source, absent]) == {"a": b"2"}
    os.utime(source, ns=(1, 1))
    assert cache.get("x", lambda: {"a": b"3"}, [source, absent]) == {"a": b"3"}
    # What is gone cannot have changed; what was absent and is there now has.
    source.unlink()
    assert cache.get("x", never, [source, absent]) == {"a": b"3"}
    absent.write_bytes(b"here")
    assert cache.get("x", lambda: {"a": b"4"}, [source, absent]) == {"a": b"4"}


def test_an_example_of_other_sources_is_made_again(tmp_path):
    cache = RecordCache(tmp_path / "cache", "1")
    cache.get("x", lambda: {"a": b"1"})
    assert cache.get("x", lambda: {"a": b"2"}, [tmp_path]) == {"a": b"2"}
