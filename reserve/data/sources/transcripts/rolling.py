"""Rolling captions: each shows again what the one before has shown, and adds a line or some words."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from reserve.data.sources.transcripts.captions import Caption

_PIECES = {"lines": re.compile(r"[^\n]*\S[^\n]*"), "words": re.compile(r"\S+")}
_MIN_SHARE = {"lines": 1 / 2, "words": 2 / 3}
"""Share of the captions that must repeat something. Every other line of a refrain may begin as the one before ends."""
_FEW = 4
"""Repetitions below which most of a caption must be repeated: two short captions can share a word by chance."""


class _Unit(NamedTuple):
    """A line or word of a caption, where it ends, and whether it has word times."""

    text: str
    last: int
    timed: bool


def drop_repeated(captions: Sequence[Caption]) -> list[Caption]:
    """`captions` without what rolling captions repeat from the one before: whole lines, or words of a line that grows
    or slides.

    Whether captions roll is decided by the whole file: most must repeat something and add to it. So "no", "no", "no"
    and refrains stay. A line with word times is never a repetition.
    """
    for unit in ("lines", "words"):
        if _is_rolling(captions, unit):
            return _without_repeated(captions, unit)
    return list(captions)


def _units(caption: Caption, unit: str) -> list[_Unit]:
    # An untimed beginning starts with the caption, so a first span at its start is no sign of word times.
    timed_places = [span.first for span in caption.spans if span.first > 0 or span.start != caption.start]
    units = []
    for match in _PIECES[unit].finditer(caption.text):
        timed = bisect_left(timed_places, match.start()) < bisect_left(timed_places, match.end())
        units.append(_Unit(" ".join(match[0].split()), match.end(), timed))
    return units


def _repeated(before: Sequence[_Unit], after: Sequence[_Unit]) -> int:
    """How many units at the end of `before` open `after`, at most.

    Linear in their number: the failure function of Knuth, Morris and Pratt over `after`, a separator and `before`.
    """
    size = min(len(before), len(after))
    opening = [None if unit.timed else unit.text for unit in after[:size]]
    sequence = [*opening, None, *(unit.text for unit in before[len(before) - size :])]
    lengths = [0] * len(sequence)
    for place in range(1, len(sequence)):
        length = lengths[place - 1]
        # None, for a timed unit or the separator, equals nothing.
        while length and (sequence[place] is None or sequence[place] != sequence[length]):
            length = lengths[length - 1]
        same = sequence[place] is not None and sequence[place] == sequence[length]
        lengths[place] = length + 1 if same else 0
    return lengths[-1] if size else 0


def _is_rolling(captions: Sequence[Caption], unit: str) -> bool:
    informative, repeats, clear_repeats = 0, 0, 0
    # One pair at a time: the words of a day take a hundred times the memory of its text.
    for before, after in pairwise(filter(None, (_units(caption, unit) for caption in captions))):
        if [one.text for one in before] != [one.text for one in after]:
            size = _repeated(before, after)
            informative += 1
            repeats += size > 0
            clear_repeats += 2 * size >= len(before)
    if repeats < _FEW:
        repeats = clear_repeats
    timed = any(caption.spans for caption in captions)
    return repeats >= (1 if timed else 2) and repeats > _MIN_SHARE[unit] * informative


def _without_repeated(captions: Sequence[Caption], unit: str) -> list[Caption]:
    kept: list[Caption] = []
    before: Sequence[_Unit] = []
    for caption in captions:
        units = _units(caption, unit)
        size = _repeated(before, units)
        if size < len(units):
            kept.append(_blank_until(caption, units[size - 1].last if size else 0))
        before = units or before
    return kept


def _blank_until(caption: Caption, place: int) -> Caption:
    text = re.sub(r"\S", " ", caption.text[:place]) + caption.text[place:]
    spans = tuple(span._replace(first=max(span.first, place)) for span in caption.spans if span.last > place)
    return replace(caption, text=text, spans=spans)
