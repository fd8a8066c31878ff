"""What all decoders share: limits, deadlines, and the reasons a file's streams are refused."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest

import reserve.data
from reserve.data.decode import protocol
from reserve.data.decode.protocol import AudioTrack, Deadline, MediaInfo, MediaLimits, TextTrack, VideoTrack
from reserve.errors import BadInput

DATA = Path(reserve.data.__file__).parent
AUDIO = (AudioTrack(), AudioTrack(False))
TEXT = (TextTrack(False), TextTrack(is_pictures=True))
GOOD = MediaInfo(VideoTrack(True, 64, 48), AUDIO, TEXT)


def test_streams_that_can_be_decoded():
    GOOD.check_video(MediaLimits())
    GOOD.check_audio(0)


@pytest.mark.parametrize(
    ("video", "reason"),
    [
        (None, "no video stream"),
        (VideoTrack(False), "no decoder for its video stream"),
        (VideoTrack(True, 0, 48), "its video has no picture size"),
        (VideoTrack(True, 20000, 2), "frames of 20000x2 pixels; at most 37748736 pixels and 16384 a side are allowed"),
    ],
)
def test_refused_video(video, reason):
    with pytest.raises(BadInput) as caught:
        MediaInfo(video, (), ()).check_video(MediaLimits())
    assert str(caught.value) == reason


def test_refused_sound_and_text():
    with pytest.raises(BadInput, match=r"^no audio track$"):
        MediaInfo(None, (), ()).check_audio(0)
    for track, reason in [(1, "no decoder for its audio track"), (2, "no audio track 2: it has 2"), (-1, "track -1")]:
        with pytest.raises(BadInput, match=reason):
            GOOD.check_audio(track)
    for track, reason in [
        (0, "no decoder for it"),
        (1, "pictures of text, which are not read"),
        (2, "no text track 2: it has 2"),
    ]:
        with pytest.raises(BadInput, match=reason):
            GOOD.check_text(track)


def test_deadline(monkeypatch):
    now = 100.0
    monkeypatch.setattr(protocol, "time", SimpleNamespace(monotonic=lambda: now))
    deadline = Deadline(5)
    now = 104.9
    deadline.check()
    now = 105.1
    with pytest.raises(BadInput, match="decoding took more than 5 s"):
        deadline.check()


def test_one_package_alone_imports_av():
    """In `reserve.data`, so that another decoder can replace PyAV."""
    importing = {
        path.relative_to(DATA)
        for path in DATA.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        and ("av" in [name.name for name in node.names] or getattr(node, "module", None) == "av")
    }
    assert importing
    assert all(path.is_relative_to("decode/pyav") for path in importing)
