"""Cues to words: what counts as spoken, and how time is shared out."""

from __future__ import annotations

import pytest

from reserve.data.sources.transcripts.cues import cues_to_words
from reserve.data.types import Cue
from reserve.errors import BadInput


def spoken(*lines):
    return " ".join(word.text for word in cues_to_words([Cue(0, 4, lines)]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plain words", "plain words"),
        ("[Music]", ""),
        ("so [laughs] yes", "so yes"),
        ("【音楽】 はい", "はい"),
        ("♪ la la ♪", "la la"),
        ("🎵 la", "la"),
        ("(applause)", ""),
        ("（拍手）", ""),
        ("*sighs*", ""),
        ("f (x) holds", "f (x) holds"),
        ("look --> here >> there", "look here there"),
        ("so - well – yes …", "so well yes"),
    ],
)
def test_what_is_spoken(text, said):
    assert spoken(text) == said


def test_sounds_over_several_lines():
    assert spoken("[Music", "playing] hello", "- you") == "hello you"
    assert spoken("(crowd cheers", "and claps)") == ""


@pytest.mark.parametrize("text", ["one<00:00:{x}01.500> two", "one <-00:00:01.500> two"])
def test_broken_tags_never_become_words(text):
    with pytest.raises(BadInput, match=r"the time 00:00:01\.500 in its text: a tag or a time line is broken"):
        spoken(text)


def test_words_share_time_by_length():
    words = cues_to_words([Cue(1, 4, ("a [x] bbb", "cc"))])
    assert [word.text for word in words] == ["a", "bbb", "cc"]
    assert [word.start for word in words] == pytest.approx([1.0, 1.5, 3.0])
    assert [word.end for word in words] == pytest.approx([1.5, 3.0, 4.0])
