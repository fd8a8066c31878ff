"""YouTube's own formats."""

from __future__ import annotations

import pytest

from reserve.data.sources.transcripts.youtube_formats import parse_json3, parse_srv
from reserve.errors import BadInput

# Recognised speech: each line stays until the next but one; words have offsets.
EVENTS = [
    {"tStartMs": 0, "dDurationMs": 9000, "id": 1, "wpWinPosId": 1},
    {
        "tStartMs": 1600,
        "dDurationMs": 4400,
        "wWinId": 1,
        "segs": [{"utf8": "this"}, {"utf8": " audio", "tOffsetMs": 320}, {"utf8": " <is>", "tOffsetMs": 800}],
    },
    {"tStartMs": 3900, "dDurationMs": 10, "wWinId": 1, "aAppend": 1, "segs": [{"utf8": "\n"}]},
    {"tStartMs": 3910, "dDurationMs": 3000, "segs": [{"utf8": "ours"}, {"utf8": " now", "tOffsetMs": 500}]},
]
WORDS = [
    ("this", 1.6, 1.92),
    ("audio", 1.92, 2.4),
    ("<is>", 2.4, 3.91),
    ("ours", 3.91, 4.41),
    ("now", 4.41, 6.91),
]
SRV3 = """<?xml version="1.0" encoding="utf-8" ?><timedtext format="3">
<head><pen id="1" fc="#FFFFFF"/><ws id="0"/></head><body><w t="0" id="1" wp="1" ws="1"/>
<p t="1600" d="4400" w="1"><s ac="0">this</s><s t="320" ac="0"> audio</s><s t="800"> &lt;is&gt;</s></p>
<p t="3900" d="10" w="1" a="1">
</p><p t="3910" d="3000" w="1"><s>ours</s><s t="500"> now</s></p></body></timedtext>"""


def triples(words):
    return [(word.text, pytest.approx(word.start, abs=1e-6), pytest.approx(word.end, abs=1e-6)) for word in words]


def test_json3():
    assert triples(parse_json3({"wireMagic": "pb3", "events": EVENTS})) == WORDS


def test_json3_of_people():
    events = [
        {"tStartMs": 0, "dDurationMs": 2000, "segs": [{"utf8": "ab\ncd"}]},
        {"tStartMs": 2000, "dDurationMs": 2000, "segs": [{"utf8": "[Music]"}]},
        {"segs": None},
        {"tStartMs": None, "segs": [{"utf8": "x"}]},
        3,
    ]
    assert triples(parse_json3({"events": events})) == [("ab", 0, 1), ("cd", 1, 2)]


def test_srv3():
    assert triples(parse_srv(SRV3)) == WORDS


def test_srv3_of_people_with_styles_and_breaks():
    text = '<timedtext format="3"><body><p t="0" d="2000"><s p="1">ab</s><s p="2"> cd</s></p>'
    text += '<p t="2000" d="2000">it&amp;#39;s<br/>me</p></body></timedtext>'
    assert [word.text for word in parse_srv(text)] == ["ab", "cd", "it's", "me"]


def test_srv2_and_srv1():
    text = '<timedtext><text t="100" d="900" w="1">ab</text><text t="500" d="900" append="1">cd</text></timedtext>'
    assert triples(parse_srv(text)) == [("ab", 0.1, 0.5), ("cd", 0.5, 1.4)]
    text = '<transcript><text start="0.1" dur="2.9">ab</text><text start="0.5" dur="0.9">&amp;lt;cd</text></transcript>'
    assert triples(parse_srv(text)) == [("ab", 0.1, 0.5), ("<cd", 0.5, 1.4)]


@pytest.mark.parametrize(
    ("parse", "value", "reason"),
    [
        (parse_json3, {"segments": []}, "not json3"),
        (parse_json3, [], "not json3"),
        (parse_srv, "<html><body>no</body></html>", "not srv"),
        (parse_srv, "<timedtext><p", "not XML"),
        (parse_srv, '<timedtext><p t="soon">a</p></timedtext>', "a p without a time: 'soon'"),
        (parse_srv, '<!DOCTYPE a [<!ENTITY b "c">]><timedtext><p t="1">&b;</p></timedtext>', "document type"),
        (parse_srv, "<timedtext>" + "<p>" * 100, "nested too deeply"),
    ],
)
def test_refused(parse, value, reason):
    with pytest.raises(BadInput, match=reason):
        parse(value)
