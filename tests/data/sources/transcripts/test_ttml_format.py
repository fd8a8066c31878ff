"""TTML: times in all their forms, nested, and of words."""

from __future__ import annotations

import pytest

from reserve.data.sources.transcripts.ttml_format import parse_ttml
from reserve.errors import BadInput


def document(body, attributes="", body_attributes=""):
    return (
        '<?xml version="1.0" encoding="utf-8" ?><tt xml:lang="en" xmlns="http://www.w3.org/ns/ttml" '
        f'xmlns:ttp="http://www.w3.org/ns/ttml#parameter" {attributes}><head><layout/></head>'
        f"<body {body_attributes}><div>{body}</div></body></tt>"
    )


def triples(words):
    return [(word.text, pytest.approx(word.start, abs=1e-6), pytest.approx(word.end, abs=1e-6)) for word in words]


@pytest.mark.parametrize(
    ("times", "start", "end"),
    [
        ('begin="00:00:01.5" end="00:00:03.500"', 1.5, 3.5),
        ('begin="00:01.5" end="00:03.5"', 1.5, 3.5),
        ('begin="1.5s" end="3500ms"', 1.5, 3.5),
        ('begin="1.5s" dur="2s"', 1.5, 3.5),
        ('begin="0.5m" end="0.01h"', 30, 36),
        ('begin="00:00:01:05" end="50f"', 1.2, 2),
        ('begin="15000000t" end="35000000t"', 1.5, 3.5),
    ],
)
def test_times(times, start, end):
    text = document(f"<p {times}>word</p>", 'ttp:frameRate="25" ttp:tickRate="10000000"')
    assert triples(parse_ttml(text)) == [("word", start, end)]


def test_paragraphs():
    text = document(
        '<p begin="1s" end="2s" style="s">ab<br/>\n <span>cd</span></p><p begin="2s" end="3s">&amp; &lt;e</p>'
    )
    assert [word.text for word in parse_ttml(text)] == ["ab", "cd", "&", "<e"]


def test_times_count_from_the_element_around():
    assert triples(parse_ttml(document('<p begin="1s" end="3s">ab</p>', "", 'begin="10s"'))) == [("ab", 11, 13)]


@pytest.mark.parametrize("base", [0, 10], ids=["from the paragraph", "from the beginning"])
def test_word_times(base):
    spans = f'<span begin="{base + 0.5}s">ab</span> <span begin="{base + 1}s">cd</span>'
    words = parse_ttml(document(f'<p begin="10s" end="13s">{spans}</p>'))
    assert triples(words) == [("ab", 10.5, 11), ("cd", 11, 13)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<html/>", "not TTML"),
        (document('<p begin="soon" end="2s">a</p>'), "begin='soon' is not a time of TTML"),
        (document('<p begin="1s" end="2s">a</p>', 'ttp:frameRate="0"'), "frame rate"),
        (document('<p begin="1s" end="2s">a</p>', 'ttp:frameRateMultiplier="a"'), "frame rate"),
        (document("<p/>", "", 'timeContainer="seq"'), "timeContainer=seq"),
        ('<!DOCTYPE tt SYSTEM "file:///etc/passwd">' + document("<p/>"), "document type"),
    ],
)
def test_refused(text, reason):
    with pytest.raises(BadInput, match=reason):
        parse_ttml(text)
