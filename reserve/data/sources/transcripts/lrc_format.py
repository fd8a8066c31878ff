"""Lyrics (.lrc): lines with the time at which they begin, and in some files the times of their words."""

from __future__ import annotations

import re

from reserve.data.sources.transcripts.cues import cues_to_words
from reserve.data.sources.transcripts.limits import check_cues, check_lines
from reserve.data.sources.transcripts.markup import WORD_TIME, time_tag
from reserve.data.sources.transcripts.time_lines import parse_time
from reserve.data.types import Cue, Word
from reserve.errors import BadInput

_STAMP = re.compile(r"\s*\[(\d[^\[\]]*)\]")
_OFFSET = re.compile(r"\s*\[offset:\s*([+-]?\d{1,9})\s*\]\s*", re.IGNORECASE)
_HEADER = re.compile(r"\s*\[[A-Za-z#][^\[\]]*\]\s*")
# "0:12:34" is minutes, seconds and hundredths.
_HUNDREDTHS = re.compile(r"(\d+:\d\d):(\d\d)")


def parse_lrc(text: str) -> list[Word]:
    """The words of an LRC text. A line is sung until the next one, even an empty one, begins."""
    check_cues(text.count("[") + text.count("<"))
    starts: list[tuple[float, str]] = []
    offset = 0.0
    for number, line in enumerate(check_lines(text), start=1):
        if found := _OFFSET.fullmatch(line):
            offset = int(found[1]) / 1000
            continue
        if _HEADER.fullmatch(line):
            continue
        times, place = [], 0
        while stamp := _STAMP.match(line, place):
            time = parse_time(_HUNDREDTHS.sub(r"\1.\2", stamp[1]))
            if time is None:
                raise BadInput(f"line {number} has no time such as [01:02.34]: {line.strip()[:60]!r}")
            times.append(time)
            place = stamp.end()
        starts += [(time, line[place:]) for time in times]
    if not starts:
        raise BadInput("not LRC: no line with a time such as [01:02.34]")
    starts.sort(key=lambda entry: entry[0])
    ends = [*(time for time, _ in starts[1:]), starts[-1][0]]
    # A positive offset shows the lyrics earlier.
    return cues_to_words(
        Cue(time - offset, end - offset, (_shifted(line, offset),))
        for (time, line), end in zip(starts, ends, strict=True)
    )


def _shifted(line: str, offset: float) -> str:
    """`line` with its word times `offset` seconds earlier."""

    def shifted(tag: re.Match[str]) -> str:
        time = parse_time(tag[1])
        return tag[0] if time is None else time_tag(time - offset)

    return WORD_TIME.sub(shifted, line) if offset else line
