"""Rolling captions: each shows again what the one before has shown, and adds a line or some words."""

from __future__ import annotations

import re
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
    timed = any(caption.spans for caption in captions)
    for unit in ("lines", "words"):
        shown = [_units(caption, unit) for caption in captions]
        if _is_rolling(shown, _MIN_SHARE[unit], timed=timed):
            return _without_repeated(captions, shown)
    return list(captions)


def _units(caption: Caption, unit: str) -> list[_Unit]:
    units = []
    for match in _PIECES[unit].finditer(caption.text):
        # An untimed beginning starts with the caption, so a first span at its start is no sign of word times.
        timed = any(
            match.start() <= span.first < match.end() and (span.first > 0 or span.start != caption.start)
            for span in caption.spans
        )
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


def _texts(units: Sequence[_Unit]) -> list[str]:
    return [unit.text for unit in units]


def _is_rolling(shown: Sequence[Sequence[_Unit]], min_share: float, *, timed: bool) -> bool:
    pairs = pairwise([units for units in shown if units])
    informative = [(before, after) for before, after in pairs if _texts(before) != _texts(after)]
    repeats = [(before, _repeated(before, after)) for before, after in informative]
    repeats = [(before, size) for before, size in repeats if size]
    if len(repeats) < _FEW:
        repeats = [(before, size) for before, size in repeats if 2 * size >= len(before)]
    return len(repeats) >= (1 if timed else 2) and len(repeats) > min_share * len(informative)


def _without_repeated(captions: Sequence[Caption], shown: Sequence[Sequence[_Unit]]) -> list[Caption]:
    kept: list[Caption] = []
    before: Sequence[_Unit] = []
    for caption, units in zip(captions, shown, strict=True):
        if not units:
            continue
        size = _repeated(before, units)
        if size < len(units):
            kept.append(_blank_until(caption, units[size - 1].last if size else 0))
        before = units
    return kept


def _blank_until(caption: Caption, place: int) -> Caption:
    text = re.sub(r"\S", " ", caption.text[:place]) + caption.text[place:]
    spans = tuple(span._replace(first=max(span.first, place)) for span in caption.spans if span.last > place)
    return replace(caption, text=text, spans=spans)
