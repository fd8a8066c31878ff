"""The names and keys of store files."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from reserve.config import DataConfig
from reserve.data.decode.protocol import MediaLimits
from reserve.data.prepare.jobs import make_job, store_key, store_name, unchanged
from reserve.data.prepare.video import PreparationSettings
from reserve.data.sources.companions import Candidate
from reserve.data.sources.discover import VideoSource
from reserve.data.sources.labels import Labels
from reserve.data.store import save_segments
from reserve.data.types import DecodedBy
from tests.helpers.small_stores import make_segments


@pytest.fixture
def source(tmp_path):
    for name, content in [("talk.mp4", b"video"), ("talk.en.vtt", b"words"), ("talk.info.json", b"{}")]:
        (tmp_path / name).write_bytes(content)
        os.utime(tmp_path / name, ns=(1_700_000_000_000_000_000,) * 2)
    transcripts = tuple(Candidate(tmp_path / name, Labels()) for name in ("talk.en.vtt", "absent.srt"))
    return VideoSource(tmp_path / "talk.mp4", "a/talk.mp4", transcripts, tmp_path / "talk.info.json")


SETTINGS = PreparationSettings(DataConfig(num_segments=8), 3, 1, MediaLimits(max_duration=60.0))


def test_stores_of_earlier_releases_stay_valid(source):
    """Keys as of version 2 of the preparation. If one changes, every prepared video is prepared again."""
    keys = [store_key(source, settings) for settings in (PreparationSettings(), SETTINGS)]
    assert keys == [
        "70ee51d51f9ebfb11fe5751a195fe2715c8fd76ceda7c39be0526b8d4b2b062f",
        "04a1d29c6bf1263f2a59891e3322b3155c3d3ae2134aa67e796b3b3722706f22",
    ]


def test_key_depends_on_whether_the_sound_is_kept(source):
    settings = [replace(SETTINGS, keep_sound=keep) for keep in (False, True)]
    assert len({store_key(source, each) for each in settings}) == 2


def test_store_names_are_safe_and_distinct():
    names = {store_name(video_id) for video_id in ["a/b.mp4", "a_b.mp4", "../../etc/x", "x" * 500, "é\udcff", ".", ""]}
    assert len(names) == 7
    assert all("/" not in name and not name.startswith(".") and len(name) < 120 for name in names)


@pytest.mark.parametrize(
    ("made", "asked", "is_kept"),
    [
        (None, "auto", True),
        (None, "pyav", True),  # earlier releases
        (None, "torchcodec", False),
        (DecodedBy("torchcodec"), "auto", True),
        (DecodedBy("torchcodec"), "torchcodec", True),
        (DecodedBy("torchcodec"), "pyav", False),
        (DecodedBy("pyav", "dali: av1", "dali"), "dali", True),  # it would fall back again
        (DecodedBy("pyav", "dali: av1", "dali"), "pyav", True),
    ],
)
def test_store_is_stale_if_another_decoder_is_named(source, tmp_path, made, asked, is_kept):
    job = make_job(source, tmp_path, SETTINGS, asked)
    save_segments(make_segments(0, 2, first_number=0), job.store, key=job.key, decoded_by=made)
    result = unchanged(job)
    assert (result is not None) == is_kept
    if result is not None:
        assert (result.decoder, result.decoder_reason) == ((made or DecodedBy()).decoder, (made or DecodedBy()).reason)
