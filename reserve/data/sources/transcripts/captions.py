"""A caption without its markup, and the words in it."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

from reserve.data.types import Word


class Span(NamedTuple):
    """Characters `first` to `last` (exclusive) of a caption, spoken from `start` to `end`; None is where the next span
    starts or, for the last one, where the speech of the caption ends."""

    first: int
    last: int
    start: float
    end: float | None


class Mark(NamedTuple):
    """Characters `first` to `last` (exclusive) of a caption, shown in the style `style`."""

    first: int
    last: int
    style: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Caption:
    """What is said from `start` to `end` seconds: lines in `text`, without markup.

    What is not spoken is blank rather than removed, so that `spans` (in order; empty if no word has a time) and `marks`
    keep their places.
    """

    start: float
    end: float
    text: str
    spans: tuple[Span, ...] = ()
    marks: tuple[Mark, ...] = ()


_WORD = re.compile(r"\S+")
_SPOKEN = re.compile(r"\w")


def caption_words(caption: Caption) -> list[Word]:
    """The words of a caption. Those of a span share its time in proportion to their lengths in characters."""
    words = list(_WORD.finditer(caption.text))
    if not words:
        return []
    spans = _complete(caption)
    clock = _Clock(words)
    timed, index = [], 0
    for word in words:
        # Punctuation around a highlighted word belongs to it.
        spoken = [place.start() for place in _SPOKEN.finditer(word[0])] or [0, len(word[0]) - 1]
        while spans[index].last <= word.start() + spoken[0]:
            index += 1
        last = index
        while spans[last].last <= word.start() + spoken[-1]:
            last += 1
        timed.append(Word(word[0], clock.at(word.start(), spans[index]), clock.at(word.end(), spans[last])))
    return timed


class _Clock:
    """When a reader of a span is at which character: white space takes no time."""

    def __init__(self, words: list[re.Match[str]]) -> None:
        self._starts = [word.start() for word in words]
        self._ends = [word.end() for word in words]
        self._before = [0, *accumulate(len(word[0]) for word in words)]

    def _count(self, place: int) -> int:
        """Characters of words before `place`."""
        index = bisect_right(self._starts, place) - 1
        return 0 if index < 0 else self._before[index] + min(place, self._ends[index]) - self._starts[index]

    def at(self, place: int, span: Span) -> float:
        """The time at the character `place`, within the span's own."""
        assert span.end is not None
        place = min(max(place, span.first), span.last)
        before, size = self._count(span.first), self._count(span.last) - self._count(span.first)
        return span.start + (span.end - span.start) * (self._count(place) - before) / max(size, 1)


def _complete(caption: Caption) -> list[Span]:
    """Spans for all of the text: what has no time lies between its neighbours."""
    size = len(caption.text)
    if not caption.spans:
        return [Span(0, size, caption.start, caption.end)]
    spans: list[Span] = []
    place, time = 0, caption.start
    for span, after in pairwise([*caption.spans, Span(size, size, caption.end, None)]):
        if span.first > place:
            spans.append(Span(place, span.first, time, max(time, span.start)))
        end = max(span.start, after.start) if span.end is None else span.end
        spans.append(Span(max(span.first, place), max(span.last, place), span.start, end))
        place, time = spans[-1].last, end
    if place < size:
        spans.append(Span(place, size, time, max(time, caption.end)))
    return spans
