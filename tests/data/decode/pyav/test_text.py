"""Captions through PyAV."""

from __future__ import annotations

import av
import pytest

from reserve.data.decode.pyav import PyAVDecoder, text
from reserve.errors import BadInput
from tests.helpers.media_files import number_picture, write_media


def cues_of(path):
    with PyAVDecoder().open(path) as media:
        return media.cues(0)


def test_spaces_and_line_ends_as_ass_writes_them(tmp_path):
    path = write_media(tmp_path / "a.mp4", frame_times=[0], cues=[(1, 2, r"hello\hthere\N\h\hmy\nfriend")])
    assert [cue.lines for cue in cues_of(path)] == [("hello there", "  my friend")]


def test_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "_MAX_CUES", 2)
    path = write_media(tmp_path / "a.mp4", frame_times=[0], cues=[(i, i + 1, "word") for i in range(3)])
    with pytest.raises(BadInput, match="more than 2 cues"):
        cues_of(path)


ASS = """[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, Bold, Italic, Alignment
Style: Default,Arial,16,&Hffffff,0,0,2

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (r"{\p1}m 0 0 l 100 0 100 100 0 100{\p0}", (r"{\p1}{\p0}",)),
        (r"one {\an8\p2\c&H00&}m 0 0 l 1 1{\p0\b1}two", (r"one {\an8\p2\c&H00&}{\p0\b1}two",)),
        (r"{\pos(1,2)\pbo3}word", (r"{\pos(1,2)\pbo3}word",)),
        (r"{\k20}one, {\k30}two", (r"{\k20}one, {\k30}two",)),
        (r"{not sure of this}word", ("word",)),
        (r"\{{}laughs} word", ("{laughs} word",)),  # as FFmpeg writes WebVTT's braces
    ],
)
def test_comments_and_drawings_are_no_text(tmp_path, text, lines):
    path = tmp_path / "a.ass"
    path.write_text(f"{ASS}Dialogue: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,{text}\n")
    assert [cue.lines for cue in cues_of(path)] == [lines]


def with_closed_captions(packet):
    """An H.264 packet with an SEI message of closed captions before its picture."""
    captions = bytes.fromhex("b500314741393403c1ff fc9420 ff".replace(" ", ""))
    message = bytes([0, 0, 0, 1, 6, 4, len(captions)]) + captions + b"\x80"
    copy = av.Packet(message + bytes(packet))
    copy.pts, copy.dts, copy.time_base, copy.stream = packet.pts, packet.dts, packet.time_base, packet.stream
    copy.is_keyframe = packet.is_keyframe
    return copy


@pytest.mark.parametrize("has_captions", [False, True])
def test_closed_captions_are_noticed(tmp_path, has_captions):
    path = tmp_path / "a.ts"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        packets = []
        for index in range(25):
            frame = av.VideoFrame.from_ndarray(number_picture(index), format="rgb24").reformat(format="yuv420p")
            frame.pts = index
            packets += stream.encode(frame)
        for packet in packets + stream.encode(None):
            container.mux(with_closed_captions(packet) if has_captions else packet)
    with PyAVDecoder().open(path) as media:
        assert media.has_closed_captions() == has_captions
        assert len(list(media.frames([0.5]))) == 1
