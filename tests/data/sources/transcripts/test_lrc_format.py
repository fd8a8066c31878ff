"""Lyrics."""

from __future__ import annotations

import pytest

from reserve.data.sources.transcripts.lrc_format import parse_lrc
from reserve.errors import BadInput


def triples(words):
    return [(word.text, pytest.approx(word.start, abs=1e-6), pytest.approx(word.end, abs=1e-6)) for word in words]


def test_lines_last_until_the_next():
    text = "[ar:someone]\n[ti:A song]\n\n[00:02.00]ab cd\n[00:03:00][00:09.00]ef\n[00:04.50]\n"
    assert triples(parse_lrc(text)) == [("ab", 2, 2.5), ("cd", 2.5, 3), ("ef", 3, 4.5), ("ef", 9, 9.16)]


def test_word_times_and_offset():
    text = "[offset:+500]\n[00:02.00]ab <00:02.50>cd\n[00:03.00]ef\n[00:04.00]\n"
    assert triples(parse_lrc(text)) == [("ab", 1.5, 2.0), ("cd", 2.0, 2.5), ("ef", 2.5, 3.5)]


@pytest.mark.parametrize(("text", "reason"), [("la la", "not LRC"), ("[00:01.0]a\n[00:1x.00]b", "line 2 has no time")])
def test_refused(text, reason):
    with pytest.raises(BadInput, match=reason):
        parse_lrc(text)
