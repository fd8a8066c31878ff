"""Caption files of blocks that begin with a time line: SubRip, WebVTT and SBV.

Written here because the libraries for these formats skip lines that they cannot parse, or take them for text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from reserve.data.sources.transcripts.limits import check_cues, check_lines
from reserve.data.sources.transcripts.time_lines import (
    TimeLine,
    looks_like_time_line,
    may_be_time_line,
    parse_time,
    parse_time_line,
)
from reserve.data.types import Cue
from reserve.errors import BadInput

_HEADER = re.compile(r"\s*WEBVTT(?:\s|$)")
_BLOCK_WITHOUT_TEXT = re.compile(r"(?:NOTE(?:\s.*)?|STYLE\s*|REGION\s*|WEBVTT(?:\s.*)?|X-TIMESTAMP-MAP=.*)")
_MAP = re.compile(r"X-TIMESTAMP-MAP=(.*)")
_MAP_PARTS = re.compile(r"(MPEGTS|LOCAL):([\d:.]+)")
_MPEG_CLOCK = 90_000
_MPEG_WRAP = 2**33
_EXAMPLE = "00:00:01.000 --> 00:00:02.500"


def parse_blocks(text: str, name: str, *, sbv: bool = False) -> list[Cue]:
    """The cues of a caption file; `name` is its format, for errors.

    A header WEBVTT makes it WebVTT, whatever its ending. Numbers and identifiers of cues may be missing, as may the
    blank lines between cues; a cue may have blank lines. Raises BadInput with the line if a line was meant as a time
    line but has no times in it.
    """
    lines = check_lines(text)
    check_cues(text.count("-->"))
    is_webvtt = _HEADER.match(text) is not None
    times = _time_lines(lines, name, sbv=sbv)
    if not times:
        if is_webvtt:
            return []
        raise BadInput(f"not {name}: no cue with a time line such as {_EXAMPLE}")
    if is_webvtt:
        _check_timestamp_map(lines)
    headers = _headers(lines, list(times), is_webvtt=is_webvtt)
    ends = [*headers[1:], len(lines)]
    return [
        Cue(time.start, time.end, tuple(_text(lines[place + 1 : end])))
        for (place, time), end in zip(times.items(), ends, strict=True)
    ]


def _time_lines(lines: Sequence[str], name: str, *, sbv: bool) -> dict[int, TimeLine]:
    """The time lines by their place."""
    times = {}
    silent = False
    for place, line in enumerate(lines):
        if not line.strip():
            silent = False
            continue
        if not may_be_time_line(line):
            continue
        if (time := parse_time_line(line, sbv=sbv)) is not None:
            times[place] = time
            continue
        before = lines[place - 1] if place else ""
        silent = silent or (not before.strip() and _BLOCK_WITHOUT_TEXT.fullmatch(line) is not None)
        if not silent and looks_like_time_line(line) and not _MAP.match(line):
            raise BadInput(f"not {name}: line {place + 1} looks like a time line but is none: {line.strip()[:60]!r}")
    return times


def _headers(lines: Sequence[str], places: Sequence[int], *, is_webvtt: bool) -> list[int]:
    """Where each cue begins: at its number or identifier if it has one, otherwise at its time line."""
    direct = [place > 0 and lines[place - 1].strip().isdecimal() for place in places]
    spaced = [place > 1 and not lines[place - 1].strip() and lines[place - 2].strip().isdecimal() for place in places]
    numbered = 2 * sum(direct) >= len(places)
    # Some programs write a blank line after every line.
    followed = sum(place + 1 < len(lines) and not lines[place + 1].strip() for place in places)
    widely = not numbered and 2 * min(sum(direct) + sum(spaced), followed) >= len(places)
    headers = []
    for index, place in enumerate(places):
        above = lines[place - 1].strip() if place else ""
        starts_block = place < 2 or not lines[place - 2].strip()
        if direct[index] and (numbered or widely or above in (str(index), str(index + 1))):
            headers.append(place - 1)
        elif spaced[index] and widely:
            headers.append(place - 2)
        elif is_webvtt and above and starts_block and place - 1 not in places[index - 1 : index]:
            headers.append(place - 1)
        else:
            headers.append(place)
    return headers


def _text(lines: Sequence[str]) -> list[str]:
    """The lines of text after a time line, without comments and style sheets."""
    text = []
    skipping, begins = False, False
    for line in lines:
        if not line.strip():
            skipping, begins = False, True
            continue
        skipping = skipping or (begins and _BLOCK_WITHOUT_TEXT.fullmatch(line) is not None)
        begins = False
        if not skipping:
            text.append(line)
    return text


def _check_timestamp_map(lines: Sequence[str]) -> None:
    """Refuses a segment of an HLS stream whose times count from another moment than the video's beginning."""
    for number, line in enumerate(lines, start=1):
        if found := _MAP.match(line.strip()):
            parts = dict(_MAP_PARTS.findall(found[1]))
            local, ticks = parse_time(parts.get("LOCAL", "")), parts.get("MPEGTS", "")
            if local is None or not ticks.isdecimal() or local != int(ticks[:20]) % _MPEG_WRAP / _MPEG_CLOCK:
                raise BadInput(
                    f"line {number}, {line.strip()[:60]!r}: its times count from a moment of an HLS stream, not from "
                    "the video's beginning"
                )
