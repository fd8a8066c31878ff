"""Videos and the set of shards that they make, shared by the tests of this folder."""

from __future__ import annotations

import shutil

import pytest

from reserve.data import decode
from tests.helpers.shard_videos import SpyPyAV, make_videos, prepare


@pytest.fixture(scope="session")
def shard_source(tmp_path_factory):
    """Five good videos and a file that is none. Not to be changed."""
    return make_videos(tmp_path_factory.mktemp("shards") / "videos")


@pytest.fixture(scope="session")
def shard_set(shard_source, tmp_path_factory):
    """The finished set of these videos, in three shards. Not to be changed."""
    out = tmp_path_factory.mktemp("shards") / "out"
    prepare(shard_source, out)
    return out


@pytest.fixture
def videos(shard_source, tmp_path):
    """A copy of the videos that a test may change."""
    return shutil.copytree(shard_source, tmp_path / "videos")


@pytest.fixture
def out(shard_set, tmp_path):
    """A copy of their set that a test may change."""
    return shutil.copytree(shard_set, tmp_path / "out")


@pytest.fixture
def spy(monkeypatch):
    """Records which files are decoded."""
    spy = SpyPyAV()
    monkeypatch.setattr(decode, "DECODERS", (spy,))
    return spy
