"""Rolling captions, by lines and within one line, and repetition that is spoken."""

from __future__ import annotations

import pytest

from reserve.data.sources.transcripts.cues import cues_to_words
from reserve.data.types import Cue


def spoken(*texts, shown=1):
    cues = [Cue(index, index + shown, tuple(text.split("\n"))) for index, text in enumerate(texts)]
    return cues_to_words(cues)


def text_of(words):
    return " ".join(word.text for word in words)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["a", "a b", "a b c"], "a b c"),
        (
            ["so we", "so we went", "so we went home", "then", "then we", "then we slept"],
            "so we went home then we slept",
        ),
        (["a b c", "b c d", "c d e", "d e f"], "a b c d e f"),
        (
            ["one two three four", "three four five six", "five six seven eight"],
            "one two three four five six seven eight",
        ),
        (["a b", "a b\nc d", "c d\ne f", "e f\ng h"], "a b c d e f g h"),
        (["p one", "p one\np two", "p one\np two\np three", "p two\np three\np four"], "p one p two p three p four"),
        (["a b", "a b c", "a b c\nd", "a b c\nd e", "d e\nf", "d e\nf g"], "a b c d e f g"),
    ],
    ids=["grows", "grows twice", "slides", "slides by two", "two lines", "three lines", "last line grows"],
)
@pytest.mark.parametrize("shown", [1, 2])
def test_each_word_is_said_once_when_it_appears(texts, said, shown):
    words = spoken(*texts, shown=shown)
    assert text_of(words) == said
    first_seen = {}
    for index, text in enumerate(texts):
        for word in text.split():
            first_seen.setdefault(word, index)
    assert all(word.start >= first_seen[word.text] for word in words)


@pytest.mark.parametrize(
    "texts",
    [
        ["no."] * 6,
        ["no. no. no.", "no. no.", "what do you mean", "I mean no", "no."],
        ["we will we will", "we will rock you"] * 3,
        ["row row row your boat", "gently down the stream", "merrily merrily merrily merrily"] * 3,
        ["I have a dream", "I have a dream today", "and so do you", "as we all know", "that it comes true"],
    ],
)
def test_spoken_repetition_stays(texts):
    assert text_of(spoken(*texts)) == " ".join(texts)


def test_long_repetitions_take_linear_time():
    line = " ".join(["a"] * 4000)
    assert len(spoken(*[line + " b", line + " c"] * 5)) == 10 * 4001
