"""Preparation with DALI from end to end: its frames are PyAV's within the tolerance, and everything else is equal."""

from __future__ import annotations

import json

import numpy as np
import pytest

from reserve.config import DataConfig
from reserve.data.decode.dali import MAX_DIFFERENCE, MEAN_DIFFERENCE, DaliDecoder
from reserve.data.images import decode_jpeg
from reserve.data.prepare.videos import prepare_videos
from reserve.data.sources.discover import discover_sources
from reserve.data.store import load_segments
from tests.helpers.media_files import Sound, click_track, write_media

SECONDS = 12
NAMES = {"a.mkv": "libvpx-vp9", "b.avi": "mpeg4"}
"""DALI decodes no MPEG-4 Part 2, on any machine: that file goes to PyAV."""
JPEG = 8
"""Levels of 255 that compressing twice may add to any value."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name, codec in NAMES.items():
        sounds = [Sound(click_track(SECONDS, [1.0, 6.0]), codec="aac" if name.endswith("mkv") else "libmp3lame")]
        write_media(folder / name, frame_times=[i / 5 for i in range(5 * SECONDS)], video_codec=codec, sounds=sounds)
        words = [{"word": "word", "start": i * 0.5, "end": i * 0.5 + 0.5} for i in range(2 * SECONDS)]
        (folder / name).with_suffix(".json").write_text(json.dumps(words))
    return folder


def stores(videos, out, decoder):
    report = prepare_videos(discover_sources([videos]), out, DataConfig(), workers=1, decoder=decoder)
    return {result.video_id: load_segments(result.store) for result in report.results}


def test_agrees_with_pyav(videos, tmp_path):
    if (reason := DaliDecoder().unavailable()) is not None:
        pytest.skip(reason)
    found, expected = (stores(videos, tmp_path / name, name) for name in ("dali", "pyav"))
    assert set(found) == set(expected) == set(NAMES)
    for name in NAMES:
        ours, theirs = found[name], expected[name]
        np.testing.assert_array_equal(ours.log_mel, theirs.log_mel)
        assert ours.words == theirs.words
        for frame, other in zip(ours.frames, theirs.frames, strict=True):
            difference = np.abs(decode_jpeg(frame).astype(int) - decode_jpeg(other))
            assert difference.mean() <= MEAN_DIFFERENCE
            assert difference.max() <= MAX_DIFFERENCE + JPEG
    assert found["b.avi"].frames == expected["b.avi"].frames
