"""Hostile files are refused at once, in every format; what a day of speech needs is read."""

from __future__ import annotations

import json
import resource
import time

import pytest

from reserve.data.sources.transcripts import load_transcript
from reserve.errors import BadInput

SIZE = 20_000_000
SECONDS = 30.0
"""Of processor time: ten times what the slowest takes, and far less than what takes time with the square of SIZE."""
MEMORY = 2**30
LINE_STARTS = {
    "a.srt": "1\n00:00:01,000 --> 00:00:04,000\n",
    "a.vtt": "WEBVTT\n\n00:00:01.000 --> 00:00:04.000\n",
    "a.sbv": "0:00:00.0,0:00:01.0\n",
    "a.lrc": "[00:01.00]",
    "a.ass": "[Events]\nDialogue: 0,0:00:01.00,0:00:02.00,,,0,0,0,,",
    "a.align": "0 1 ",
    "a.ttml": '<tt><p begin="1s" end="2s">',
    "a.srv1": '<transcript><text start="1" dur="2">',
    "a.srv3": '<timedtext><p t="1" d="2">',
    "a.json": '[{"start": 0, "end": 1, "text": "',
    "a.json3": '{"events": [{"tStartMs": 0, "segs": [{"utf8": "',
}
FILLS = ["a ", "<b>", "ж"]


def refuse(tmp_path, name, content):
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    with pytest.raises(BadInput) as caught:
        load_transcript(tmp_path / name)
    assert time.process_time() - start < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY
    return str(caught.value)


@pytest.mark.parametrize("name", LINE_STARTS)
def test_a_line_of_20_million_characters(tmp_path, name):
    for fill in FILLS:
        refuse(tmp_path, name, LINE_STARTS[name] + fill * (SIZE // len(fill)))


@pytest.mark.parametrize("name", ["a.json", "a.json3"])
def test_a_text_of_20_million_characters_in_good_json(tmp_path, name):
    end = '"}]' if name == "a.json" else '"}]}]}'
    for fill in ("a", "a ", "<b>"):
        content = LINE_STARTS[name] + fill * (SIZE // len(fill)) + end
        assert "characters" in refuse(tmp_path, name, content)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.srt", "-->\n" * 1_000_000),
        ("a.srt", "0:1-->0:2\na\n" * 5_000_000),
        ("a.srt", "\r" * 60_000_000),
        ("a.srt", LINE_STARTS["a.srt"] + ("ab " * 3000 + "\n") * 2000),
        (
            "a.srt",
            "".join(f"{i}\n0:{i // 60}:{i % 60} --> 0:{i // 60}:{i % 60}\n{'a ' * 4900}\n\n" for i in range(2200)),
        ),
        ("a.srt", b"\xff" * SIZE),
        ("a.srt", LINE_STARTS["a.srt"].encode() + b"\xe9 a" * (SIZE // 3)),
        ("a.srt", bytes(SIZE)),
        ("a.srt", b"a\0" * (SIZE // 2)),
        ("a.align", "0 1 a\n" * 3_000_000),
        ("a.lrc", ("[0:1]" * 1900 + "\n") * 2000),
        ("a.ass", "[Events]\n" + "Dialogue: 0,0:00:01.00,0:00:02.00,,,0,0,0,,a\n" * 600_000),
        ("a.srv1", "<transcript>" + '<text start="1" dur="2">a</text>' * 600_000),
        ("a.ttml", "<tt>" * 1_000_000),
        ("a.ttml", "<tt " + 'a="b" ' * 2_000_000 + "/>"),
        ("a.json", "[" * SIZE),
        ("a.json", '{"a":' * 4_000_000),
        ("a.json", "[" + "[]," * 20_000_000),
        ("a.json", "[" + "0," * 20_000_000),
        ("a.json", json.dumps([{"word": "a" * SIZE, "start": 0, "end": 1}])),
    ],
    ids=lambda value: value if len(value) < 12 else value[:24],
)
def test_too_many_or_too_deep(tmp_path, name, content):
    refuse(tmp_path, name, content)


def test_entities_do_not_unfold(tmp_path):
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 12))
    content = f'<!DOCTYPE tt [<!ENTITY e0 "a">{entities}]><tt><p begin="1s" end="2s">&e11;</p></tt>'
    assert "document type" in refuse(tmp_path, "a.ttml", content)


def test_ten_hours_of_word_timed_captions(tmp_path):
    """A tenth of what the limits allow, so that the test stays short."""
    blocks = []
    for cue in range(9000):
        start = 4 * cue
        clock = f"{start // 3600:02}:{start // 60 % 60:02}"
        words = "".join(f"<{clock}:{start % 60:02}.{place}00><c> word{place}</c>" for place in range(1, 9))
        blocks.append(f"{clock}:{start % 60:02}.000 --> {clock}:{start % 60 + 3:02}.900\nword{words}\n")
    (tmp_path / "a.vtt").write_text("WEBVTT\n\n" + "\n".join(blocks))
    words = load_transcript(tmp_path / "a.vtt")
    assert len(words) == 9 * 9000
    assert words[-1].start == pytest.approx(4 * 8999 + 0.8)
