"""Metadata: read where it is whole, reported and left empty where it is not."""

from __future__ import annotations

import json

import pytest

from reserve.data.sources.metadata import load_metadata
from reserve.data.types import VideoMetadata


def test_title_description_tags(tmp_path):
    path = tmp_path / "a.info.json"
    path.write_text(json.dumps({"title": " T ", "description": "D", "tags": ["x", 3, "", "y"], "formats": [{}]}))
    assert load_metadata(path) == (VideoMetadata("T", "D", ("x", "y")), None)


def test_no_metadata_file():
    assert load_metadata(None) == (VideoMetadata(), None)


def test_nulls_are_empty(tmp_path):
    path = tmp_path / "a.info.json"
    path.write_text('{"title": null, "tags": null}')
    assert load_metadata(path) == (VideoMetadata(), None)


def test_half_a_surrogate_pair_can_be_written_again(tmp_path):
    path = tmp_path / "a.info.json"
    path.write_text('{"title": "a\\ud800b"}')
    assert load_metadata(path)[0].title == "a?b"


def test_length_is_bounded(tmp_path):
    path = tmp_path / "a.info.json"
    path.write_text(json.dumps({"description": "x" * 10**6, "tags": ["t"] * 10**5}))
    metadata, _ = load_metadata(path)
    assert len(metadata.description) == 10_000
    assert len(metadata.tags) == 500


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\x00\x01", b"[" * 10**5])
def test_broken_file_is_named_in_a_warning(tmp_path, content):
    path = tmp_path / "a.info.json"
    path.write_bytes(content)
    metadata, warning = load_metadata(path)
    assert metadata == VideoMetadata()
    assert warning.startswith("metadata ignored: a.info.json: ")
