"""Which tracks are refused, each for one reason."""

from __future__ import annotations

import numpy as np
import pytest

from reserve.data.sources.transcripts.plausible import plausible_words
from reserve.data.types import Word
from reserve.errors import BadInput

SENTENCE = "we the people of the united states in order to form a more perfect union establish justice and liberty"
TEXT = SENTENCE.split()


def speech(texts=TEXT, seconds_per_word=0.4):
    return [Word(text, i * seconds_per_word, (i + 1) * seconds_per_word) for i, text in enumerate(texts)]


def test_speech_passes_unchanged():
    assert plausible_words(speech()) == speech()


def test_capitals_pass():
    assert len(plausible_words(speech([text.upper() for text in TEXT]))) == len(TEXT)


def test_compounds_pass():
    german = "die Donaudampfschifffahrt ist eine Gesellschaft und sie fährt auf dem Fluss durch viele schöne Länder hin"
    assert plausible_words(speech(german.split()))


def test_small_disorder_is_sorted():
    words = speech()
    words[3], words[4] = words[4], words[3]
    assert plausible_words(words) == speech()


def test_times_before_zero_are_cut():
    assert plausible_words([Word("a", -2, -1), Word("b", -1, 1), *speech()])[0] == Word("b", 0, 1)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "no words"),
        ([Word("a", float("nan"), 1)], "not numbers"),
        ([Word("a", 0, float("inf"))], "not numbers"),
        ([Word(word.text, word.end, word.start) for word in speech()], "end before they start"),
        (speech(seconds_per_word=1.0)[::-1], "run backwards"),
        (speech(seconds_per_word=0.05), "words a second"),
        (speech(["x" * 200] * 20), "look like words"),
        (speech(["--", "??"] * 20), "look like words"),
        (speech(["a\x01b"] * 20), "look like words"),
        (speech(["a", "b" * 29] * 20), "variance"),
        ([Word("a", -2, -1)], "before time 0"),
    ],
)
def test_refused(words, reason):
    with pytest.raises(BadInput, match=reason):
        plausible_words(words)


def test_shuffled_times_are_refused():
    order = np.random.default_rng(0).permutation(len(TEXT))
    with pytest.raises(BadInput, match="run backwards"):
        plausible_words([speech()[index] for index in order])
