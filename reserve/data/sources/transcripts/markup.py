"""Reads the markup of captions: HTML-like tags, WebVTT's word times, and the override codes of ASS."""

from __future__ import annotations

import html
import re

from reserve.data.sources.transcripts.captions import Caption, Mark, Span
from reserve.data.sources.transcripts.time_lines import INVISIBLE, parse_time
from reserve.data.types import Cue

WORD_TIME = re.compile(r"<(\d+:\d[\d:.,]*)>")
"""A time tag, such as <00:00:01.234>."""
_MARKUP = re.compile(
    r"<(?P<time>\d+:\d[\d:.,]*)>"
    r"|<(?P<close>/?)(?P<tag>[A-Za-z][A-Za-z0-9]*)(?P<rest>(?:[.\s/=][^<>]*)?)>"
    r"|\{(?P<codes>[^{}]*)\}"  # also comments, and MicroDVD's codes that converters leave in SRT
)
# Only with a semicolon: AT&T and R&B are not entities.
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_CODE = re.compile(r"\\(\d?[A-Za-z]+)([^\\]*)")
_KARAOKE = frozenset({"k", "K", "kf", "ko"})
# Tags that say who speaks or in which language, not how a word looks.
_PLAIN_TAGS = frozenset({"v", "lang", "ruby", "c"})
_NOT_READ = frozenset({"rt", "rp"})
"""The reading of a ruby character repeats what the character says."""
_MAX_OPEN_TAGS = 32
_DRAWING = frozenset("mnlbspc")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def time_tag(seconds: float) -> str:
    """The time tag of `seconds` >= 0, for formats whose word times become tags."""
    milliseconds = max(round(seconds * 1000), 0)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"<{minutes // 60}:{minutes % 60:02d}:{milliseconds / 1000:06.3f}>"


def decode_entities(text: str) -> str:
    """`text` with entities such as &amp; and &#39; decoded once."""
    return _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)


def read_markup(cue: Cue) -> Caption:
    """The caption of a cue: its text without tags and codes, entities decoded, runs of white space as one character."""
    reader = _Reader(cue.start)
    raw, place = "\n".join(cue.lines), 0
    for match in _MARKUP.finditer(raw):
        reader.add(raw[place : match.start()])
        reader.apply(match)
        place = match.end()
    reader.add(raw[place:])
    return reader.caption(cue)


class _Reader:
    """The state of reading one cue."""

    def __init__(self, start: float) -> None:
        self._parts: list[str] = []
        self._size = 0
        self._last = "\n"
        self._open: list[tuple[str, str]] = []
        self._codes: dict[str, str] = {}
        self._drawing = False
        self._clock = start
        self._karaoke = False
        self._times: list[tuple[int, float]] = []
        self._marks: list[Mark] = []

    def add(self, text: str) -> None:
        if not text or self._drawing or any(name in _NOT_READ for name, _ in self._open):
            return
        text = INVISIBLE.sub("", decode_entities(text))
        text = re.sub(r"\s+", lambda space: "\n" if "\n" in space[0] else " ", text)
        if self._last.isspace():
            text = text.lstrip()
        if not text:
            return
        style = (
            *(name for _, name in self._open if name),
            *(f"\\{name}{value}" for name, value in sorted(self._codes.items())),
        )
        self._parts.append(text)
        if style:
            self._marks.append(Mark(self._size, self._size + len(text), style))
        self._size += len(text)
        self._last = text[-1]

    def apply(self, match: re.Match[str]) -> None:
        if match["time"]:
            seconds = parse_time(match["time"])
            if seconds is not None:
                self._times.append((self._size, seconds))
        elif match["tag"]:
            self._apply_tag(match["tag"].lower(), match["rest"], closing=bool(match["close"]))
        elif match["codes"]:
            self._apply_codes(match["codes"])

    def _apply_tag(self, name: str, rest: str, *, closing: bool) -> None:
        if name == "br":
            self.add("\n")
        elif closing:
            place = next((i for i in reversed(range(len(self._open))) if self._open[i][0] == name), None)
            if place is not None:
                del self._open[place]
        elif not rest.endswith("/") and len(self._open) < _MAX_OPEN_TAGS:
            style = "" if name in _PLAIN_TAGS and not (name == "c" and rest) else name + " ".join(rest.split()).lower()
            self._open.append((name, style))

    def _apply_codes(self, codes: str) -> None:
        for name, value in _CODE.findall(codes):
            value = value.strip()
            if name in _KARAOKE:
                if value.isdecimal() and len(value) < 7:
                    self._times.append((self._size, self._clock))
                    self._clock += int(value) / 100
                    self._karaoke = True
            elif name == "p":
                self._drawing = value not in ("", "0")
            elif name == "r":
                self._codes.clear()
            elif value in ("", "0"):
                self._codes.pop(name, None)
            else:
                self._codes[name] = value

    def caption(self, cue: Cue) -> Caption:
        text = "".join(self._parts)
        if _is_drawing(text):
            return Caption(cue.start, cue.end, "")
        times = [(place, time) for place, time in self._times if place < self._size]
        if times and text[: times[0][0]].strip():
            times.insert(0, (0, cue.start))
        ends = [*times, (self._size, self._clock if self._karaoke else None)][1:]
        spans = [Span(place, last, time, end) for (place, time), (last, end) in zip(times, ends, strict=False)]
        return Caption(
            cue.start, cue.end, text, tuple(span for span in spans if span.last > span.first), tuple(self._marks)
        )


def _is_drawing(text: str) -> bool:
    """Whether `text` is an ASS drawing whose codes a converter has removed: m 0 0 l 100 0 100 100."""
    parts = text.split()
    return (
        len(parts) >= 6
        and parts[0] in ("m", "n")
        and all(part in _DRAWING or _NUMBER.fullmatch(part) is not None for part in parts)
    )
