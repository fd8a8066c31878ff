"""What the ways of loading have in common."""

from __future__ import annotations

import numpy as np

from benchmarks.shards.loading import WholeVideoFiles
from reserve.config import DataConfig
from reserve.data.collection import StoreFiles
from reserve.data.prepare import prepare_stores, recorded_stores
from reserve.data.sources.discover import discover_sources
from tests.helpers.shard_videos import make_video


def test_whole_videos_give_the_segments_of_preparation(tmp_path):
    path = make_video(tmp_path / "videos" / "one.mp4", 1)
    prepare_stores([path], tmp_path / "stores", DataConfig(), workers=0, seed=0, audio_track=None)
    stores = StoreFiles(tuple(recorded_stores(tmp_path / "stores")))
    files = WholeVideoFiles(tuple(discover_sources([path])), stores, DataConfig())
    ours, stored = files.load(0, 0, 2), stores.load(0, 0, 2)
    for name in ("start", "playback_speed", "log_mel"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(stored, name))
    assert ours.words == stored.words
