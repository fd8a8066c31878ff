"""SubStation Alpha (.ass, .ssa), with the syllable times of karaoke."""

from __future__ import annotations

import re
from typing import NamedTuple

from reserve.data.sources.transcripts.cues import cues_to_words
from reserve.data.sources.transcripts.limits import check_cues, check_lines
from reserve.data.sources.transcripts.time_lines import parse_time
from reserve.data.types import Cue, Word
from reserve.errors import BadInput

_SECTION = re.compile(r"\s*\[([^\[\]]+)\]\s*")
_BREAK = re.compile(r"\\[Nn]")
# The columns where the section names none: those of version 4 and 4+, which differ in the first.
_COLUMNS = ("layer", "start", "end", "style", "name", "marginl", "marginr", "marginv", "effect", "text")


class _Event(NamedTuple):
    cue: Cue
    kind: str
    effect: str


def parse_ass(text: str) -> list[Word]:
    """The words of the dialogue lines of an ASS or SSA text."""
    check_cues(text.count("Dialogue:") + text.count("Comment:"))
    events = _events(check_lines(text))
    if not events:
        raise BadInput("not ASS: no line 'Dialogue: …' in a section [Events]")
    dialogue = [event for event in events if event.kind == "dialogue"]
    # A karaoke template keeps the sung lines as comments and adds a line of effects for each syllable and layer.
    if any(event.effect == "fx" for event in dialogue):
        dialogue = [event for event in events if event.effect == "karaoke" or event in dialogue]
        dialogue = [event for event in dialogue if event.effect != "fx"]
    return cues_to_words(event.cue for event in dialogue)


def _events(lines: list[str]) -> list[_Event]:
    events = []
    section = ""
    columns: tuple[str, ...] = _COLUMNS
    for number, line in enumerate(lines, start=1):
        if found := _SECTION.fullmatch(line):
            section = found[1].strip().lower()
            continue
        kind, separator, content = line.partition(":")
        kind = kind.strip().lower()
        if section != "events" or not separator:
            continue
        if kind == "format":
            columns = tuple(name.strip().lower() for name in content.split(","))
            if not {"start", "end", "text"} <= set(columns) or columns[-1] != "text":
                raise BadInput(f"line {number}: the columns of its events lack Start, End or, at the end, Text")
        elif kind in ("dialogue", "comment"):
            events.append(_event(kind, content, columns, number))
    return events


def _event(kind: str, content: str, columns: tuple[str, ...], number: int) -> _Event:
    values = dict(zip(columns, content.split(",", len(columns) - 1), strict=False))
    start, end = parse_time(values.get("start", "")), parse_time(values.get("end", ""))
    if start is None or end is None or "text" not in values:
        raise BadInput(f"line {number} has no start, end and text: {content.strip()[:60]!r}")
    text = values["text"].replace("\\h", " ")
    return _Event(Cue(start, end, tuple(_BREAK.split(text))), kind, values.get("effect", "").strip().lower())
