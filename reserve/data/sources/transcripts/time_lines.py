"""The time lines of caption formats, and what only looks like one."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

INVISIBLE = re.compile(r"[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\xad]")
"""Characters without a width, such as the marks of direction that editors put around Arabic and Hebrew."""
_TIME = r"(?:(\d{1,3})\s?:\s?)?(\d{1,3})\s?:\s?(\d{1,2})(?:\s?[.,]\s?(\d{1,9}))?"
_ARROW = r"(?:-{1,3}\s?-?\s?>|[–—―]\s?>|-{1,3}&gt;|={1,2}>|[→⟶➔])"
_ONE_TIME = re.compile(_TIME)
_TIME_LINE = re.compile(rf"\s*{_TIME}\s*{_ARROW}\s*{_TIME}(?=\s|$)(.*)")
_SBV_LINE = re.compile(rf"\s*{_TIME}\s*,\s*{_TIME}\s*")
# Settings of WebVTT (align:start) and coordinates of SRT (X1:100).
_SETTINGS = re.compile(r"(?:\s*[A-Za-z][A-Za-z0-9-]*:\S*)*\s*")
_ANY_ARROW = re.compile(_ARROW)
_LIKE_TIME = re.compile(r"\d\s?[:;]\s?\d|\w\w:\w\w:\w\w")
_LETTER = re.compile(r"[^\W\d_]")
EXACT_TIME = re.compile(r"\d{1,2}\s?[:;]\s?\d{2}\s?[:;]\s?\d{2}\s?[.,;:]\s?\d{2,3}")
"""A time with a fraction, which nobody says."""
# What markup.py reads as tags.
_TAGS = re.compile(r"<(?:\d+:\d[\d:.,]*|/?[A-Za-z][A-Za-z0-9]*(?:[.\s/=][^<>]*)?)>")


class TimeLine(NamedTuple):
    """Start and end of a cue in seconds."""

    start: float
    end: float


def parse_time(text: str) -> float | None:
    """Seconds of `hh:mm:ss.mmm`. Hours and fraction may be missing, the decimal sign may be a comma."""
    match = _ONE_TIME.fullmatch(text.strip())
    return None if match is None else _seconds(*match.groups())


def parse_time_line(line: str, *, sbv: bool = False) -> TimeLine | None:
    """The times of `line` if it is a time line, that is `start --> end` or, for SBV, `start,end`.

    Tolerates what `parse_time` does, one-digit fields, other arrows, missing or additional spaces, full-width
    characters, and settings after the times.
    """
    match = (_SBV_LINE.fullmatch if sbv else _TIME_LINE.match)(_plain(line))
    if match is None or (not sbv and not _SETTINGS.fullmatch(match[9])):
        return None
    start, end = _seconds(*match.groups()[:4]), _seconds(*match.groups()[4:8])
    return None if start is None or end is None else TimeLine(start, end)


def looks_like_time_line(line: str) -> bool:
    """Whether `line`, which is no time line, was meant as one: its words would be times."""
    line = _plain(_TAGS.sub("", line))
    if EXACT_TIME.search(line):
        return True
    if not _ANY_ARROW.search(line):
        return False
    return bool(_LIKE_TIME.search(line)) or (not _LETTER.search(line) and any(map(str.isdecimal, line)))


def may_be_time_line(line: str) -> bool:
    """A quick test that every line passes that the two functions above answer with anything but no."""
    return ":" in line or ";" in line or ">" in line or not line.isascii()


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str | None) -> float | None:
    # 60 comes from rounding 59.9996; more than 59 minutes are written where hours are missing.
    if int(seconds) > 60 or (hours is not None and int(minutes) > 60):
        return None
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction or 0}")


def _plain(line: str) -> str:
    return line if line.isascii() else INVISIBLE.sub("", unicodedata.normalize("NFKC", line))
