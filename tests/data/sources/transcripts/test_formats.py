"""Every transcript format, read through `load_transcript`, word by word."""

from __future__ import annotations

import json

import pytest

from reserve.data.sources.transcripts import (
    TRANSCRIPT_SUFFIXES,
    UNREAD_FORMATS,
    is_word_timed,
    load_transcript,
    read_transcript,
)
from reserve.errors import BadInput

YOUTUBE = """WEBVTT
Kind: captions
Language: en

00:00:01.599 --> 00:00:03.909 align:start position:0%
 
this<00:00:01.920><c> audio</c><00:00:02.480><c> is</c>

00:00:03.909 --> 00:00:03.919 align:start position:0%
this audio is
 

00:00:03.919 --> 00:00:05.349 align:start position:0%
this audio is
this<00:00:04.080><c> audio</c><00:00:04.240><c> is</c>

00:00:05.349 --> 00:00:05.359 align:start position:0%
this audio is
 

00:00:05.359 --> 00:00:07.000 align:start position:0%
this audio is
ours
"""


def load(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_transcript(path)


def triples(words):
    return [(word.text, pytest.approx(word.start, abs=1e-6), pytest.approx(word.end, abs=1e-6)) for word in words]


def test_youtube_word_times_without_rolling_duplicates(tmp_path):
    words = load(tmp_path, "a.en.vtt", YOUTUBE)
    assert triples(words) == [
        ("this", 1.599, 1.92),
        ("audio", 1.92, 2.48),
        ("is", 2.48, 3.909),
        ("this", 3.919, 4.08),
        ("audio", 4.08, 4.24),
        ("is", 4.24, 5.349),
        ("ours", 5.359, 7.0),
    ]


def test_plain_webvtt(tmp_path):
    text = (
        "WEBVTT\n\nNOTE nothing\n\nSTYLE\n::cue {}\n\nid\n00:01.000 --> 00:03.000 line:0\n<b>ab</b> &lt;cd\n\n"
        "01:00:00.000 --> 01:00:01.000\nx\n"
    )
    assert triples(load(tmp_path, "a.vtt", text)) == [("ab", 1, 1.8), ("<cd", 1.8, 3), ("x", 3600, 3601)]


def test_srt(tmp_path):
    text = "1\n00:00:01,500 --> 00:00:02,500\n<i>one</i>\ntwo\n\n2\n00:00:03,000 --> 00:00:04,000\n[Music]\n"
    assert triples(load(tmp_path, "a.srt", text)) == [("one", 1.5, 2.0), ("two", 2.0, 2.5)]


@pytest.mark.parametrize(
    ("encoding", "mark"), [("utf-8", b""), ("utf-8", b"\xef\xbb\xbf"), ("utf-16-le", b"\xff\xfe"), ("cp1252", b"")]
)
def test_encodings_and_line_ends(tmp_path, encoding, mark):
    text = "1\r\n00:00:01,000 --> 00:00:02,000\r\ncafé\r\n\r\n"
    assert triples(load(tmp_path, "a.srt", mark + text.encode(encoding))) == [("café", 1, 2)]


WORDS = [{"word": " Hello,", "start": 0.5, "end": 0.9}, {"word": " you", "start": 1.0, "end": 1.5}]


@pytest.mark.parametrize(
    "value",
    [
        {"text": " Hello, you", "segments": [{"start": 0.5, "end": 1.5, "text": " Hello, you", "words": WORDS}]},
        {"segments": [{"start": 0.5, "end": 1.5, "words": [{**word, "text": word["word"]} for word in WORDS]}]},
        WORDS,
        {"words": WORDS},
        {"result": [{**word, "conf": 1.0} for word in WORDS], "text": "hello you"},
        [{"result": WORDS[:1], "text": "hello"}, {"result": WORDS[1:]}, {"text": ""}],
        [{"content": "hello you", "start": 0.5, "end": 1.5, "words": WORDS}],
        {"text": "Hello, you", "segments": [{"start": 0.0, "end": 9.0, "text": " Hello, you"}], "words": WORDS},
        {"alternatives": [{"confidence": 9.0, "result": WORDS}, {"confidence": 8.0, "result": WORDS[:1]}]},
        {
            "monologues": [
                {
                    "speaker": {"id": "unknown"},
                    "start": 0.5,
                    "end": 1.5,
                    "terms": [{"text": word["word"], "start": word["start"], "end": word["end"]} for word in WORDS],
                }
            ],
            "text": ["hello you"],
        },
    ],
    ids=[
        *("whisper", "whisper-timestamped", "flat", "words", "vosk", "vosk-list", "videogrep"),
        *("whisper-service", "vosk-alternatives", "vosk-transcriber"),
    ],
)
def test_json(tmp_path, value):
    words = load(tmp_path, "a.json", json.dumps(value))
    assert triples(words) == [("Hello,", 0.5, 0.9), ("you", 1.0, 1.5)]


@pytest.mark.parametrize("indent", [None, 2])
def test_json_values_without_a_list_around_them(tmp_path, indent):
    """As a loop leaves it that prints each of Vosk's results: no list around them."""
    results = [{"result": WORDS[:1], "text": "hello"}, {"text": ""}, {"result": WORDS[1:], "text": "you"}]
    words = load(tmp_path, "a.json", "\n".join(json.dumps(result, indent=indent) for result in results) + "\n")
    assert triples(words) == [("Hello,", 0.5, 0.9), ("you", 1.0, 1.5)]


def test_align(tmp_path):
    text = "0 12250 sil\n12250 19250 set\n19250 27250 white\n27250 74500 sil\n"
    assert triples(load(tmp_path, "a.align", text)) == [("set", 0.49, 0.77), ("white", 0.77, 1.09)]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.vtt", b"#!/bin/sh\necho 00:00:01.000 --> 00:00:02.000\n", "not WebVTT"),
        ("a.vtt", bytes(range(256)) * 40, "binary"),
        ("a.vtt", b"", "empty file"),
        ("a.vtt", b"WEBVTT\n", "no words"),
        ("a.vtt", b"WEBVTT\n\n00:00:01.000 --> 00:00:02.000\n[Music]\n", "no words"),
        ("a.srt", b"just a letter to a friend", "not SRT"),
        ("a.srt", b"\x81\x8d\x8f\x90\x9d" * 50, "its encoding"),
        ("a.json", b"{", "not JSON"),
        ("a.json", b'[{"word": "x", "start": 0, "end": 1}] and more', "not JSON"),
        ("a.json", b"[" * 100_000, "not JSON"),
        ("a.json", b"[" * 500 + b"]" * 500, "nested too deeply"),
        ("a.json", b'{"title": "no transcript"}', "no words with start and end"),
        ("a.json", b'[{"word": "x", "start": NaN, "end": 1e400}]', "no words with start and end"),
        ("a.align", b"a b c\n", "line 1"),
        ("a.json3", b"[]", "not json3"),
        ("a.srv3", b"<x/>", "not srv"),
        ("a.srv2", b"a", "not XML"),
        ("a.srv1", b"<timedtext/>", "no words"),
        ("a.ttml", b"<x/>", "not TTML"),
        ("a.dfxp", b"<x/>", "not TTML"),
        ("a.ass", b"x", "not ASS"),
        ("a.ssa", b"x", "not ASS"),
        ("a.sbv", b"x", "not SBV"),
        ("a.lrc", b"x", "not LRC"),
        ("a.txt", b"hello", "unknown transcript format '.txt'"),
    ],
)
def test_bad_transcripts(tmp_path, name, content, reason):
    with pytest.raises(BadInput, match=reason):
        load(tmp_path, name, content)


def test_words_with_damaged_characters_are_dropped_with_a_warning(tmp_path):
    path = tmp_path / "a.srt"
    path.write_bytes("1\n00:00:01,000 --> 00:00:02,000\nthe café here br".encode() + b"\xc3\x28l")
    words, warnings = read_transcript(path)
    assert [word.text for word in words] == ["the", "café", "here"]
    assert warnings == ["1 damaged characters in it; the words with them are dropped"]


def test_joined_files_and_old_line_ends(tmp_path):
    text = "\ufeff1\r00:00:01,000 --> 00:00:02,000\rone\r\r\ufeff2\r00:00:02,000 --> 00:00:03,000\rtwo\r"
    assert triples(load(tmp_path, "a.srt", text)) == [("one", 1, 2), ("two", 2, 3)]


def test_breaks_that_converters_leave_in_srt(tmp_path):
    words = load(tmp_path, "a.srt", "1\n00:00:01,000 --> 00:00:02,000\n- one\\hand\\N- two\n")
    assert [word.text for word in words] == ["one", "and", "two"]


def test_breaks_in_sbv(tmp_path):
    assert len(load(tmp_path, "a.sbv", "0:00:01.000,0:00:02.000\none[br]two\n")) == 2


TIMED = {
    "a.vtt": (YOUTUBE, True),
    "b.vtt": ("WEBVTT\n\n00:01.000 --> 00:02.000\nx\n", False),
    "c.srt": ("", False),
    "d.json": ("", True),
    "e.align": ("", True),
    "f.json3": ('{"events": [{"segs": [{"utf8": "a", "tOffsetMs": 9}]}]}', True),
    "g.json3": ('{"events": [{"segs": [{"utf8": "a"}]}]}', False),
    "h.srv3": ('<timedtext><p t="1"><s ac="0">a</s><s t="9">b</s></p></timedtext>', True),
    "i.srv3": ('<timedtext><p t="1"><s p="1">a</s></p></timedtext>', False),
    "j.ass": ("[Events]\nDialogue: {\\kf20}a", True),
    "k.ass": ("[Events]\nDialogue: {\\b1}a", False),
    "l.ttml": ('<tt><p begin="1s"><span begin="1s">a</span></p></tt>', True),
    "m.ttml": ('<tt><p begin="1s"><span>a</span></p></tt>', False),
    "n.lrc": ("[00:01.00]a <00:02.00>b", True),
}


@pytest.mark.parametrize("name", TIMED)
def test_word_timed(tmp_path, name):
    content, is_timed = TIMED[name]
    (tmp_path / name).write_text(content)
    assert is_word_timed(tmp_path / name) is is_timed


def test_formats_are_read_or_named():
    assert not set(TRANSCRIPT_SUFFIXES) & set(UNREAD_FORMATS)


def test_real_captions_agree_with_each_other(shared_dir):
    folder = shared_dir / "realdata" / "video_local_only"
    tagged, plain = (load_transcript(folder / f"manifesto.{kind}") for kind in ("vtt", "srt"))
    assert [word.text for word in tagged] == [word.text for word in plain]
    assert tagged[0].start == pytest.approx(1.599)
    # Two recognisers heard 'manifesto' of the title at the same time.
    heard = load_transcript(folder / "manifesto.json")
    first = [next(word for word in words if word.text == "manifesto") for words in (tagged, heard)]
    assert first[0].start == pytest.approx(first[1].start, abs=0.3)
