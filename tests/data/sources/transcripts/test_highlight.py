"""Cues that repeat a line with one word after the other marked."""

from __future__ import annotations

import pytest

from reserve.data.sources.transcripts.cues import cues_to_words
from reserve.data.types import Cue

WORDS = ["so", "we", "went", "to", "the", "market", "and", "bought", "some", "apples,", "pears", "and", "plums"]
MARKS = [
    ("<u>", "</u>"),
    ("<b>", "</b>"),
    ("<i>", "</i>"),
    ('<font color="#00ff00">', "</font>"),
    ("<c.highlight>", "</c>"),
    ("<mark>", "</mark>"),
    (r"{\1c&H00FF00&}", r"{\r}"),
    (r"{\u1}", r"{\u0}"),
    (r"{\c&H0000FF&}", r"{\c&HFFFFFF&}"),
]


def read(cues):
    return cues_to_words(Cue(start, end, tuple(text.split("\n"))) for start, end, text in cues)


def triples(words):
    return [(word.text, pytest.approx(word.start, abs=1e-6), pytest.approx(word.end, abs=1e-6)) for word in words]


def timed(words):
    return [(word, 0.4 * place, 0.4 * place + 0.4) for place, word in enumerate(words)]


def highlighted(words, mark, size, mark_punctuation=True, break_after=99):
    cues = []
    for place, word in enumerate(words):
        first = place - place % size
        line = words[first : first + size]
        inside = word if mark_punctuation else word.rstrip(",")
        line[place - first] = mark[0] + inside + mark[1] + word[len(inside) :]
        text = " ".join(line[:break_after]) + "\n" + " ".join(line[break_after:])
        cues.append((0.4 * place, 0.4 * place + 0.4, text.strip()))
    return cues


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("size", [2, 3, 4, 13])
def test_words_have_the_times_of_the_cues_that_mark_them(mark, size):
    assert triples(read(highlighted(WORDS, mark, size))) == timed(WORDS)


def test_punctuation_outside_the_mark_belongs_to_its_word():
    assert triples(read(highlighted(WORDS, MARKS[0], 13, mark_punctuation=False))) == timed(WORDS)


def test_a_line_break_inside():
    assert triples(read(highlighted(WORDS, MARKS[0], 13, break_after=5))) == timed(WORDS)


def test_lines_and_words_that_are_repeated():
    words = ["la", "la", "la", "hey"] * 3
    assert triples(read(highlighted(words, MARKS[0], 4))) == timed(words)
    words = ["hey", "you"] * 4
    assert triples(read(highlighted(words, MARKS[0], 2))) == timed(words)


def test_unmarked_cues_in_pauses_and_lines_of_one_word():
    cues, wanted, time = [], [], 0.0
    for line in ("hello", "now listen", "yes", "we go on"):
        for place, word in enumerate(line.split()):
            words = line.split()
            words[place] = f"<u>{word}</u>"
            cues += [(time, time + 0.2, line), (time + 0.2, time + 0.5, " ".join(words))]
            wanted.append((word, time + 0.2, time + 0.5))
            time += 0.5
    assert triples(read(cues)) == wanted


def test_a_word_that_is_never_marked_lies_between_its_neighbours():
    cues = highlighted(WORDS, MARKS[0], 13)
    start, _, text = cues[3]
    cues[3] = (start, start + 0.4, text.replace("<u>", "").replace("</u>", ""))
    assert triples(read(cues)) == timed(WORDS)


def test_parts_of_several_words_share_the_time_of_their_cue():
    cues = [(0, 1, "<u>ab cd</u> ef gh"), (1, 2, "ab cd <u>ef gh</u>")]
    assert triples(read(cues)) == [("ab", 0, 0.5), ("cd", 0.5, 1), ("ef", 1, 1.5), ("gh", 1.5, 2)]


def test_a_mark_that_grows():
    cues = [
        (0.4 * place, 0.4 * place + 0.4, f"<u>{' '.join(WORDS[: place + 1])}</u> {' '.join(WORDS[place + 1 :])}")
        for place in range(len(WORDS))
    ]
    assert triples(read(cues)) == timed(WORDS)


def test_all_words_coloured_and_one_in_another_colour():
    cues = [
        (
            0.4 * place,
            0.4 * place + 0.4,
            " ".join(f'<font color="{"red" if i == place else "white"}">{word}</font>' for i, word in enumerate(WORDS)),
        )
        for place in range(len(WORDS))
    ]
    assert triples(read(cues)) == timed(WORDS)


def test_speaker_names_before_highlighted_lines():
    cues = [(start, end, f"ANN: {text}") for start, end, text in highlighted(WORDS, MARKS[0], 13)]
    assert triples(read(cues)) == timed(WORDS)


def test_italics_in_ordinary_captions_are_no_highlight():
    cues = [(0, 2, "<i>you</i> did"), (2, 4, "you <i>did</i>")]
    cues += [(start, start + 2, f"and <i>then</i> came {start}") for start in range(4, 30, 2)]
    words = read(cues)
    assert [word.text for word in words[:4]] == ["you", "did", "you", "did"]
    assert words[1].end == 2
