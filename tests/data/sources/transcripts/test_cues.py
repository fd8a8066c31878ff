"""Cues to words: what counts as spoken, how time is shared out, and scrolling captions."""

from __future__ import annotations

import pytest

from reserve.data.sources.transcripts.cues import cue_words, plain_cues_to_words, spoken_text, spread_words
from reserve.data.types import Cue


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("plain words", "plain words"),
        ("<i>Hi</i> <c.colorE5E5E5>there</c> <v Anna>you</v>", "Hi there you"),
        ("Tom &amp; Jerry&#39;s&nbsp;day", "Tom & Jerry's day"),
        ("{\\an8}above", "above"),
        ("[Music]", ""),
        ("so [laughs] yes", "so yes"),
        ("♪ la la ♪", "la la"),
        ("(applause)", ""),
        ("f (x) holds", "f (x) holds"),
        (">> who is it?", "who is it?"),
        ("&gt;&gt; NAR: This is", "This is"),
        ("- Yes. ", "Yes."),
        ("note: keep this", "note: keep this"),
        ("3 < 4 and 5 > 4", "3 < 4 and 5 > 4"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
    ],
)
def test_spoken_text(text, spoken):
    assert spoken_text(text) == spoken


def test_words_share_time_by_length():
    words = spread_words("a bbb cc", 1.0, 4.0)
    assert [word.text for word in words] == ["a", "bbb", "cc"]
    assert [word.start for word in words] == pytest.approx([1.0, 1.5, 3.0])
    assert [word.end for word in words] == pytest.approx([1.5, 3.0, 4.0])


def test_lines_of_a_cue_are_one_text():
    words = cue_words(Cue(0, 4, ("[Music", "playing] hello", "- you")))
    assert [word.text for word in words] == ["hello", "you"]


def test_scrolling_captions_say_each_line_once():
    lines = ["one two", "three four", "five six", "seven eight", "nine ten"]
    cues = [Cue(0, 1, (lines[0],))]
    cues += [Cue(i, i + 1, (lines[i - 1], lines[i])) for i in range(1, 5)]
    words = plain_cues_to_words(cues)
    assert " ".join(word.text for word in words) == " ".join(lines)
    assert words[2].start == 1.0


def test_repetition_in_ordinary_captions_stays():
    cues = [
        Cue(0, 1, ("no",)),
        Cue(1, 2, ("no",)),
        Cue(2, 3, ("never",)),
        Cue(3, 4, ("not at all",)),
        Cue(4, 5, ("ever",)),
    ]
    assert [word.text for word in plain_cues_to_words(cues)][:2] == ["no", "no"]
