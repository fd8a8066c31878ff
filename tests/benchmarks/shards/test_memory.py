"""Preparation takes the same memory for a video of any length."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from benchmarks.shards.memory import command_peak, measure, repeat_video
from reserve.data.decode import choose_file_decoder
from reserve.data.sources.discover import discover_sources
from tests.helpers.shard_videos import make_video

MINUTE_OF_SOUND = 60 * 22050 * 4


@pytest.fixture
def source(tmp_path):
    return discover_sources([make_video(tmp_path / "videos" / "one.mp4", 1)])[0]


def test_a_long_video_is_the_short_one_over_and_over(source, tmp_path):
    repeat_video(source, tmp_path / "long.mp4", 2)
    (long,) = discover_sources([tmp_path / "long.mp4"])
    with choose_file_decoder().open(source.path) as short, choose_file_decoder().open(long.path) as media:
        once, sound = short.soundtrack(sample_rate=22050), media.soundtrack(sample_rate=22050)
        assert 120 <= sound.media_end <= 120 + once.media_end + 0.1
        (first,) = short.frames([5.0])
        for frame in media.frames([5.0, 5.0 + math.ceil(once.media_end + 0.1)]):
            np.testing.assert_array_equal(frame, first)


def test_the_memory_of_this_process_does_not_count():
    """Linux counts it as that of a command which this process starts itself."""
    ours = np.ones(150_000_000, np.uint8)
    assert command_peak([sys.executable, "-c", "pass"]) < ours.nbytes


def test_a_command_that_fails_is_an_error():
    with pytest.raises(RuntimeError, match="no such thing"):
        command_peak([sys.executable, "-c", "raise SystemExit('no such thing')"])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_the_video(source):
    peaks = measure(source, [30, 90])["peak_bytes"]
    assert peaks["90"] - peaks["30"] < 20 * MINUTE_OF_SOUND
