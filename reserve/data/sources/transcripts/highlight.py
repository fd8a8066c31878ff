"""Cues that repeat a line to highlight one word after the other: the times of the words are those of the cues."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from reserve.data.sources.transcripts.captions import Caption, Span

_MIN_ADVANCING = 0.3
"""Least share of a style's uses that move on to the next words of the same line. Lines of two words reach a half; in
ordinary captions, italics hardly ever do."""
_MIN_SHARE = 0.3
"""Least share of a file's captions that belong to such lines."""

_Style = tuple[str, ...]
_Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Shown:
    """A caption with the one part that each style marks. Styles that mark several parts are left out."""

    caption: Caption
    parts: dict[_Style, _Range]

    def covers_all(self, part: _Range) -> bool:
        text = self.caption.text
        return not _has_letters(text[: part[0]]) and not _has_letters(text[part[1] :])


def merge_highlighted(captions: Sequence[Caption]) -> list[Caption]:
    """`captions` with each series of cues that highlight one line as one caption with spans.

    A series repeats a line and marks another part of it each time, in reading order. Whether a style is a highlight is
    decided by the whole file: italics for emphasis are not.
    """
    if not any(caption.marks for caption in captions):
        return list(captions)
    lines = [list(group) for _, group in groupby(map(_shown, captions), key=lambda shown: _line(shown.caption))]
    styles = _highlights(lines)
    if not styles:
        return list(captions)
    return [caption for line in lines for caption in _merge(line, styles)]


def _line(caption: Caption) -> str:
    return caption.text.replace("\n", " ").rstrip()


def _has_letters(text: str) -> bool:
    return any(map(str.isalnum, text))


def _shown(caption: Caption) -> _Shown:
    parts: dict[_Style, list[_Range]] = {}
    place = 0
    for mark in (*caption.marks, None):
        first, last, style = mark or (len(caption.text), len(caption.text), ())
        for begin, end, name in ((place, first, ()), (first, last, style)):
            if not _has_letters(caption.text[begin:end]):
                continue
            found = parts.setdefault(name, [])
            if found and not _has_letters(caption.text[found[-1][1] : begin]):
                found[-1] = (found[-1][0], end)
            else:
                found.append((begin, end))
        place = last
    return _Shown(caption, {style: found[0] for style, found in parts.items() if len(found) == 1})


def _highlights(lines: Sequence[Sequence[_Shown]]) -> set[_Style]:
    """The styles that are highlights: those that move from part to part of a line or, failing that, that grow over
    it. What has no style is a highlight only if all else has one and moves."""
    moving = _usual_styles(lines, lambda before, part: part[0] >= before[1])
    if styles := {style for style in moving if style} or moving:
        return styles
    return {style for style in _usual_styles(lines, lambda before, part: _new_part(before, part) is not None) if style}


def _usual_styles(lines: Sequence[Sequence[_Shown]], advances: Callable[[_Range, _Range], bool]) -> set[_Style]:
    """The styles that often advance from one cue of a line to the next, in a large share of the file."""
    advancing: Counter[_Style] = Counter()
    used: Counter[_Style] = Counter()
    captions: Counter[_Style] = Counter()
    several = 0
    for line in lines:
        several += len(line) if len(_line(line[0].caption).split()) > 1 else 0
        before: dict[_Style, _Range] = {}
        here: Counter[_Style] = Counter()
        for shown in line:
            for style, part in shown.parts.items():
                if shown.covers_all(part):
                    continue
                used[style] += 1
                here[style] += style in before and advances(before[style], part)
                before[style] = part
        advancing += here
        captions += Counter({style: len(line) for style, count in here.items() if count})
    return {
        style
        for style, count in advancing.items()
        if count >= _MIN_ADVANCING * used[style] and captions[style] >= _MIN_SHARE * several
    }


def _new_part(before: _Range, part: _Range) -> _Range | None:
    """What a cue marks that the cue before did not: the next part, or what the mark has grown by."""
    if part[0] >= before[1]:
        return part
    if part[0] == before[0] and part[1] > before[1]:
        return before[1], part[1]
    return None


def _merge(line: Sequence[_Shown], styles: set[_Style]) -> Iterator[Caption]:
    """The captions of a line: one for each time that it is read from its beginning."""
    spans: list[Span] = []
    reading: list[Caption] = []
    before: _Range | None = None
    for shown in line:
        part = next((shown.parts[style] for style in shown.parts if style in styles), None)
        new = part if part is None or before is None else _new_part(before, part)
        if part is not None and part == before:
            spans[-1] = spans[-1]._replace(end=shown.caption.end)
        elif new is not None:
            spans.append(Span(*new, shown.caption.start, shown.caption.end))
        elif part is not None:
            yield from _caption(reading, spans)
            reading, spans = [], [Span(*part, shown.caption.start, shown.caption.end)]
        before = part or before
        reading.append(shown.caption)
    yield from _caption(reading, spans)


def _caption(reading: Sequence[Caption], spans: Sequence[Span]) -> Iterator[Caption]:
    if not spans:
        yield from reading
    elif reading:
        yield replace(reading[0], end=max(reading[-1].end, reading[-1].start), spans=tuple(spans), marks=())
