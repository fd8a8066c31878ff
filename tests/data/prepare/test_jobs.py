"""The names and keys of store files."""

from __future__ import annotations

import os

import pytest

from reserve.config import DataConfig
from reserve.data.decode.protocol import MediaLimits
from reserve.data.prepare.jobs import store_key, store_name
from reserve.data.prepare.video import PreparationSettings
from reserve.data.sources.discover import VideoSource


@pytest.fixture
def source(tmp_path):
    for name, content in [("talk.mp4", b"video"), ("talk.en.vtt", b"words"), ("talk.info.json", b"{}")]:
        (tmp_path / name).write_bytes(content)
        os.utime(tmp_path / name, ns=(1_700_000_000_000_000_000,) * 2)
    transcripts = (tmp_path / "talk.en.vtt", tmp_path / "absent.srt")
    return VideoSource(tmp_path / "talk.mp4", "a/talk.mp4", transcripts, tmp_path / "talk.info.json")


SETTINGS = PreparationSettings(DataConfig(num_segments=8), 3, 1, MediaLimits(max_duration=60.0))


def test_stores_of_earlier_releases_stay_valid(source):
    """Keys recorded before there was a choice of decoders. If one changes, every prepared video is prepared again."""
    keys = [store_key(source, settings, ["pyav"]) for settings in (PreparationSettings(), SETTINGS)]
    assert keys == [
        "cc537cfd16a55453b7bf73dd709d3173eaf11cd6815ef1d4800307dcded93612",
        "37f80b29f9a7559ff757ff16c7cb4deb2050d91eaa3dbcdb78c059109b60cdfb",
    ]


def test_key_depends_on_the_decoders(source):
    """Of pictures, and of sound and text."""
    decoders = [["pyav"], ["other"], ["batches", "pyav"], ["batches", "other"]]
    assert len({store_key(source, SETTINGS, names) for names in decoders}) == 4


def test_store_names_are_safe_and_distinct():
    names = {store_name(video_id) for video_id in ["a/b.mp4", "a_b.mp4", "../../etc/x", "x" * 500, "é\udcff", ".", ""]}
    assert len(names) == 7
    assert all("/" not in name and not name.startswith(".") and len(name) < 120 for name in names)
