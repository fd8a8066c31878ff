"""Time lines and what is around them: read by a stated tolerance, or refused with the line."""

from __future__ import annotations

import pytest

from reserve.data.sources.transcripts.timed_blocks import parse_blocks
from reserve.errors import BadInput

GOOD = "1\n00:00:01,000 --> 00:00:04,000\nfirst here\n\n2\n00:00:04,000 --> 00:00:07,500\nand more\n\n" + (
    "3\n00:00:07,500 --> 00:00:10,000\nthe last\n"
)
CUES = [(1.0, 4.0, "first here"), (4.0, 7.5, "and more"), (7.5, 10.0, "the last")]
HEADERS = {"SRT": "", "WebVTT": "WEBVTT\n\n"}


def read(text, name="SRT", **options):
    return [(cue.start, cue.end, "\n".join(cue.lines)) for cue in parse_blocks(text, name, **options)]


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize(
    "line",
    [
        "00:00:04 --> 00:00:07,500",
        "00:00:04.000 --> 00:00:07.500",
        "0:0:4,0 --> 0:0:7,5",
        "00:04,000 --> 00:07,500",
        "00:00:04,000-->00:00:07,500",
        "  00:00:04,000   -->   00:00:07,500  ",
        "00 : 00 : 04 , 000 --> 00 : 00 : 07 , 500",
        "00:00:04,000000 --> 00:00:07,500000",
        "00:00:04,000 -> 00:00:07,500",
        "00:00:04,000 - -> 00:00:07,500",
        "00:00:04,000 —> 00:00:07,500",
        "00:00:04,000 → 00:00:07,500",
        "00:00:04,000 ==> 00:00:07,500",
        "00:00:04,000 --&gt; 00:00:07,500",
        "００：００：０４，０００ －－＞ ００：００：０７，５００",
        "\u202b00:00:04,000 --> \u200f00:00:07,500\u202c",
        "00:00:04,000 --> 00:00:07,500 X1:100 X2:200 Y1:1 Y2:3",
        "00:00:04,000 --> 00:00:07,500 align:start position:0%",
    ],
)
def test_tolerated_time_lines(line, name):
    assert read(HEADERS[name] + GOOD.replace("00:00:04,000 --> 00:00:07,500", line), name) == CUES


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize(
    "line",
    [
        "00:00:04,000 --> 00:00:07,5O0",
        "00:00:0a,000 --> 00:00:07,500",
        "00:00:04,000 -->",
        "--> 00:00:07,500",
        "00:00:04,000 00:00:07,500",
        "00:00:04,000 to 00:00:07,500",
        "00:00:04,000",
        "00;00;04;000 --> 00;00;07;500",
        "00:00:04:000 --> 00:00:07:500",
        "00:99:04,000 --> 00:99:07,500",
        "-00:00:04,000 --> 00:00:07,500",
        "00:00:04,000 --> 00:00:07,500 and more",
        "[00:04.000 --> 00:07.500]",
        "4 --> 7.5",
        "xx:yy:zz --> aa:bb:cc",
    ],
)
def test_broken_time_lines_are_refused_with_the_line(line, name):
    text = HEADERS[name] + GOOD.replace("00:00:04,000 --> 00:00:07,500", line)
    number = text.split("\n").index(line) + 1
    with pytest.raises(BadInput, match=f"not {name}: line {number} looks like a time line but is none: ") as caught:
        read(text, name)
    assert line in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("\n2\n", "\n"),
        GOOD.replace("\n2\n", "\n").replace("\n3\n", "\n").removeprefix("1\n"),
        GOOD.replace("\n\n", "\n"),
        GOOD.replace("\n\n2\n", "\n").replace("\n\n3\n", "\n").removeprefix("1\n"),
        GOOD.replace("\n", "\n\n"),
        GOOD.replace("1\n", "0\n").replace("\n2\n", "\n1\n").replace("\n3\n", "\n2\n"),
        "some credits\n\n" + GOOD,
    ],
    ids=["one without number", "no numbers", "no blanks", "neither", "blank after every line", "from 0", "before them"],
)
def test_numbers_and_blank_lines_may_be_missing(text):
    assert read(text) == CUES


def test_blank_lines_inside_a_cue():
    cues = read(GOOD.replace("and more", "and\n\nmore"))
    assert cues[1] == (4.0, 7.5, "and\nmore")


def test_captions_that_are_numbers_stay():
    numbered = "".join(f"{i + 1}\n00:00:0{i} --> 00:00:0{i + 1}\n{10 - i}\n\n" for i in range(4))
    assert [text for _, _, text in read(numbered)] == ["10", "9", "8", "7"]
    plain = "".join(f"00:00:0{i} --> 00:00:0{i + 1}\n{text}\n\n" for i, text in enumerate(["so", "10", "9", "off"]))
    assert [text for _, _, text in read(plain)] == ["so", "10", "9", "off"]


@pytest.mark.parametrize("text", ["A --> B", "step 1 --> step 2", "it's 10:30 now", "at 10:30:15 sharp", "a -> b: c"])
def test_text_that_only_resembles_a_time_line(text):
    assert read(GOOD.replace("and more", text))[1][2] == text


def test_webvtt():
    text = (
        "WEBVTT - a title\nKind: captions\n\nSTYLE\n::cue { color: red; }\n\nREGION\nid:a\nwidth:40%\n\n"
        "NOTE 00:01 --> later\n\nintro\n00:00:01.000 --> 00:00:04.000 align:start\nfirst here\n\n"
        "NOTE\nof several\nlines\n\nsecond one\n00:04.000 --> 00:07.500\nand more\n\n"
        "00:07.500 --> 00:10.000\nthe last\n"
    )
    assert read(text, "WebVTT") == CUES
    assert read(text, "SRT") == CUES
    assert read(text + "\n" + text, "WebVTT") == CUES + CUES


@pytest.mark.parametrize(
    ("value", "is_read"),
    [
        ("LOCAL:00:00:00.000,MPEGTS:0", True),
        ("MPEGTS:900000,LOCAL:00:00:10.000", True),
        ("LOCAL:00:00:00.000,MPEGTS:900000", False),
        ("MPEGTS:", False),
    ],
)
def test_segments_of_a_stream_are_read_only_if_their_times_are_those_of_the_video(value, is_read):
    text = f"WEBVTT\nX-TIMESTAMP-MAP={value}\n\n{GOOD}"
    if is_read:
        assert read(text, "WebVTT") == CUES
        return
    with pytest.raises(BadInput, match=f"line 2, 'X-TIMESTAMP-MAP={value}': its times count from a moment of an HLS"):
        read(text, "WebVTT")


def test_sbv():
    text = "0:00:01.000,0:00:04.000\nfirst here\n\n0:00:04.000,0:00:07.500\nand more\n\n0:00:07.5,0:00:10.0\nthe last\n"
    assert read(text, "SBV", sbv=True) == CUES
    with pytest.raises(BadInput, match="not SBV: line 4 looks like a time line"):
        read(text.replace("0:00:04.000,0:00:07", "0:00:0x.000,0:00:07"), "SBV", sbv=True)
