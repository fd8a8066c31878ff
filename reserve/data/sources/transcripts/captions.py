"""A caption without its markup, and the words in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
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
    lengths = [_count_characters(caption.text, span.first, span.last) for span in spans]
    timed, index = [], 0
    for word in words:
        # Punctuation around a highlighted word belongs to it.
        spoken = [place.start() for place in _SPOKEN.finditer(word[0])] or [0, len(word[0]) - 1]
        while spans[index].last <= word.start() + spoken[0]:
            index += 1
        last = index
        while spans[last].last <= word.start() + spoken[-1]:
            last += 1
        start = _time_at(caption.text, spans[index], lengths[index], word.start())
        end = _time_at(caption.text, spans[last], lengths[last], word.end())
        timed.append(Word(word[0], start, end))
    return timed


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


def _count_characters(text: str, first: int, last: int) -> int:
    return sum(map(len, text[first:last].split()))


def _time_at(text: str, span: Span, length: int, place: int) -> float:
    """When the reader of a span reaches the character `place`."""
    assert span.end is not None
    if not length or place <= span.first:
        return span.start
    if place >= span.last:
        return span.end
    return span.start + (span.end - span.start) * _count_characters(text, span.first, place) / length
