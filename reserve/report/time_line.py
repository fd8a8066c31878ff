"""Places the words of a segment along its time, so that none covers another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reserve.config import SEGMENT_SECONDS
from reserve.data.types import Word

MOST_WORDS = 120
"""Words of a segment that are shown; speech has 8 to 20 in 5 s."""
MOST_LETTERS = 40
# Share of the line that a letter and the gap behind a word take, in percent, for a line of some 700 pixels.
_LETTER, _GAP = 1.15, 1.2


@dataclass(frozen=True, slots=True)
class PlacedWord:
    """A word spoken from `left` percent of the line on, for `width` percent of it. It is written in a `row` from
    `text_left` percent on: further left at the line's end, where it would not fit."""

    text: str
    start: float
    end: float
    left: float
    width: float
    text_left: float
    row: int


def place_words(words: Sequence[Word]) -> list[PlacedWord]:
    """The first MOST_WORDS words of a segment, each in the first row where it has room."""
    placed: list[PlacedWord] = []
    free: list[float] = []  # Where each row is free from.
    for word in words[:MOST_WORDS]:
        left = _percent(word.start)
        width = min(max(_percent(word.end) - left, 0.4), 100 - left)
        text = word.text if len(word.text) <= MOST_LETTERS else f"{word.text[: MOST_LETTERS - 1]}…"
        needed = len(text) * _LETTER
        text_left = round(max(min(left, 100 - needed), 0.0), 2)
        row = next((row for row, until in enumerate(free) if until <= text_left), len(free))
        free[row : row + 1] = [max(text_left + needed, left + width) + _GAP]
        placed.append(PlacedWord(text, word.start, word.end, left, round(width, 2), text_left, row))
    return placed


def _percent(time: float) -> float:
    return round(100 * min(max(time / SEGMENT_SECONDS, 0.0), 1.0), 2)
