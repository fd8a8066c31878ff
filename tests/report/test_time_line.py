"""Words along the time of a segment: where they are spoken, and none over another."""

from __future__ import annotations

import pytest

from reserve.data.types import Word
from reserve.report.time_line import MOST_LETTERS, MOST_WORDS, place_words


def test_words_stand_at_their_time():
    first, second = place_words([Word("so", 1.0, 1.5), Word("then", 4.0, 4.5)])
    assert (first.left, first.width, first.text_left, first.row) == (20.0, 10.0, 20.0, 0)
    assert (second.left, second.row) == (80.0, 0)


@pytest.mark.parametrize("gap", [0.0, 0.05, 0.25, 0.5])
def test_no_word_covers_another(gap):
    placed = place_words([Word(f"word{n}" * (n % 3 + 1), gap * n, gap * n + 0.2) for n in range(20)])
    for place, word in enumerate(placed):
        for other in placed[:place]:
            apart = other.text_left + len(other.text) <= word.text_left or word.row != other.row
            assert apart, (other, word)


def test_all_stay_inside_the_line():
    words = [Word("x" * 500, 4.9, 99.0), Word("early", -3.0, -2.0), Word("late", 7.0, 8.0), Word("back", 3.0, 1.0)]
    for word in place_words(words):
        assert 0 <= word.left <= word.left + word.width <= 100
        assert 0 <= word.text_left <= 100 - len(word.text)
        assert len(word.text) <= MOST_LETTERS


def test_hostile_counts_are_cut():
    assert len(place_words([Word("a", 0.0, 0.0)] * 5000)) == MOST_WORDS
    assert place_words([]) == []
