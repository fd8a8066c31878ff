"""When the speech of captions ends that overlap."""

from __future__ import annotations

import pytest

from reserve.data.sources.transcripts.cues import cues_to_words
from reserve.data.types import Cue
from reserve.errors import BadInput

WORDS = [f"w{first}{second}d" for first in "abcdefgh" for second in "abcdefghij"]


def words_of(*cues):
    return cues_to_words(Cue(start, end, (text,)) for start, end, text in cues)


def triples(words):
    return [(word.text, pytest.approx(word.start, abs=1e-6), pytest.approx(word.end, abs=1e-6)) for word in words]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("order", [1, -1])
def test_each_cue_stays_until_the_next_but_one(size, order):
    cues = [
        (0.4 * place, min(0.4 * (place + 2 * size), 32.0), " ".join(WORDS[place : place + size]))
        for place in range(0, len(WORDS), size)
    ]
    words = words_of(*cues[::order])
    assert triples(words) == [(text, 0.4 * place, 0.4 * place + 0.4) for place, text in enumerate(WORDS)]


def test_two_speakers_share_the_time_of_cues_that_start_together():
    words = words_of((1, 3, "ab cd"), (1, 3, "ef gh"), (3, 4, "ij"))
    assert triples(words) == [("ab", 1, 1.5), ("cd", 1.5, 2), ("ef", 2, 2.5), ("gh", 2.5, 3), ("ij", 3, 4)]


def test_a_cue_a_few_milliseconds_later_is_spoken_at_the_same_time():
    words = words_of((1, 3, "ab cd"), (1.01, 3, "ef gh"))
    assert triples(words) == [("ab", 1, 1.5), ("cd", 1.5, 2), ("ef", 2, 2.5), ("gh", 2.5, 3)]


def test_a_sign_above_several_cues_is_read_once():
    words = words_of((0, 9, "town hall"), (2, 4, "good day"), (4, 6, "to you"))
    assert triples(words)[:2] == [("town", 0, 1), ("hall", 1, 2)]
    assert triples(words)[2:] == [("good", 2, 2 + 8 / 7), ("day", 2 + 8 / 7, 4), ("to", 4, 4.8), ("you", 4.8, 6)]


def test_cues_without_an_end_last_until_the_next_or_as_long_as_a_slow_speaker():
    words = words_of((0, 0, "one two"), (0.4, 0.4, "three"), (9, 9, "four"))
    assert triples(words) == [("one", 0, 0.2), ("two", 0.2, 0.4), ("three", 0.4, 0.8), ("four", 9, 9.32)]


def test_one_cue_that_ends_before_it_starts_counts_as_one_without_an_end():
    assert triples(words_of((1, 0.5, "one"), (2, 3, "two"))) == [("one", 1, 1.24), ("two", 2, 3)]


def test_many_cues_that_end_before_they_start_are_refused():
    with pytest.raises(BadInput, match="10 of its 10 cues end before they start"):
        words_of(*((start + 1, start, "one two") for start in range(10)))


def test_a_repeated_cue_counts_once():
    assert triples(words_of((0, 1, "one"), (0, 1, "one"))) == [("one", 0, 1)]
