"""Videos that no browser plays are told apart by container and codec."""

from __future__ import annotations

from pathlib import PurePath

import pytest

from reserve.data.decode import MediaInfo, VideoTrack
from reserve.serve.playback import why_not_played


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "h264"), ("a.MP4", "av1"), ("a.webm", "vp9"), ("a.mov", "h264"), ("a.mp4", "")]
)
def test_common_videos_are_played(name, codec):
    assert why_not_played(PurePath(name), MediaInfo(VideoTrack(codec=codec), (), ())) is None


@pytest.mark.parametrize(
    ("name", "codec", "reason"),
    [
        ("a.avi", "h264", "browsers do not play .avi files"),
        ("a.mp4", "mpeg4", "browsers do not play mpeg4 in .mp4 files"),
        ("a.webm", "h264", "browsers do not play h264 in .webm files"),
    ],
)
def test_others_say_why_not(name, codec, reason):
    assert why_not_played(PurePath(name), MediaInfo(VideoTrack(codec=codec), (), ())) == reason
