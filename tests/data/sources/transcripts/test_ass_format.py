"""SubStation Alpha."""

from __future__ import annotations

import pytest

from reserve.data.sources.transcripts.ass_format import parse_ass
from reserve.errors import BadInput

HEAD = (
    "[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname\nStyle: Default,Arial\n\n[Events]\n"
    "Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
)


def line(start, end, text, kind="Dialogue", effect="", layer=0):
    return f"{kind}: {layer},0:00:{start:05.2f},0:00:{end:05.2f},Default,,0,0,0,{effect},{text}\n"


def triples(words):
    return [(word.text, pytest.approx(word.start, abs=1e-6), pytest.approx(word.end, abs=1e-6)) for word in words]


def test_dialogue():
    text = HEAD + line(1, 2, r"{\an8}ab,\Ncd") + line(2, 3, r"{\p1}m 0 0 l 9 0 9 9{\p0}") + line(3, 4, r"e\hf{note}")
    text += line(4, 5, "not shown", kind="Comment")
    assert triples(parse_ass(text)) == [("ab,", 1, 1.6), ("cd", 1.6, 2), ("e", 3, 3.5), ("f", 3.5, 4)]


def test_outlines_and_shadows_repeat_a_line():
    text = HEAD + "".join(line(1, 2, text, layer=layer) for layer, text in enumerate(["ab", r"ab", "ab"]))
    assert triples(parse_ass(text)) == [("ab", 1, 2)]


def test_karaoke():
    words = parse_ass(HEAD + line(1, 4, r"{\k20}hel{\k30}lo {\kf50}you"))
    assert triples(words) == [("hello", 1, 1.5), ("you", 1.5, 2)]


def test_effects_of_a_karaoke_template_are_replaced_by_the_lines_they_come_from():
    text = HEAD + line(1, 4, r"{\k50}hello {\k50}you", kind="Comment", effect="karaoke")
    text += "".join(line(1, 4, rf"{{\pos({place},9)}}{part}", effect="fx") for place, part in enumerate(["hel", "lo"]))
    assert triples(parse_ass(text)) == [("hello", 1, 1.5), ("you", 1.5, 2)]


def test_ssa_with_other_columns():
    text = (
        "[Events]\nFormat: Marked, Start, End, Style, Name, Text\nDialogue: Marked=0,0:00:01.00,0:00:02.00,D,,ab, cd\n"
    )
    assert [word.text for word in parse_ass(text)] == ["ab,", "cd"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no ASS", "not ASS"),
        (HEAD, "not ASS"),
        (HEAD + "Dialogue: 0,0:00:01.00,soon,Default,,0,0,0,,x\n", "line 10 has no start, end and text"),
        (HEAD + "Dialogue: 0,0:00:01.00\n", "line 10 has no start"),
        ("[Events]\nFormat: Text, Start, End\n", "line 2: the columns"),
    ],
)
def test_refused(text, reason):
    with pytest.raises(BadInput, match=reason):
        parse_ass(text)
