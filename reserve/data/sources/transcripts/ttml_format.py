"""TTML (.ttml, .dfxp)."""

from __future__ import annotations

import html
import re
from typing import NamedTuple

from reserve.data.sources.transcripts.cues import cues_to_words
from reserve.data.sources.transcripts.limits import check_cues
from reserve.data.sources.transcripts.markup import time_tag
from reserve.data.sources.transcripts.xml_events import read_xml
from reserve.data.types import Cue, Word
from reserve.errors import BadInput

_CLOCK = re.compile(r"(\d{1,3}):(\d{1,2}):(\d{1,2})(?:\.(\d{1,9})|[:;](\d{1,3})(?:\.\d{1,3})?)?")
_SHORT_CLOCK = re.compile(r"(\d{1,3}):(\d{1,2}(?:\.\d{1,9})?)")
_OFFSET = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)(h|m|s|ms|f|t)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def parse_ttml(text: str) -> list[Word]:
    """The words of the paragraphs of a TTML text. Times of an element count from the beginning of the one around it."""
    reader = _Reader()
    read_xml(text, reader.start, reader.end, reader.data)
    if not reader.is_ttml:
        raise BadInput("not TTML: no element tt in it")
    return cues_to_words(reader.cues)


class _Element(NamedTuple):
    name: str
    begin: float
    end: float | None


class _Reader:
    def __init__(self) -> None:
        self.cues: list[Cue] = []
        self.is_ttml = False
        self._rates = {"f": 30.0, "t": 1.0}
        self._around: list[_Element] = []
        self._parts: list[str] = []
        self._paragraph: _Element | None = None

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "tt":
            self.is_ttml = True
            self._set_rates(attributes)
        if attributes.get("timeContainer") == "seq":
            raise BadInput("TTML whose elements follow one another (timeContainer=seq) is not read")
        around = self._around[-1] if self._around else _Element("", 0.0, None)
        element = self._timed(name, attributes, around)
        self._around.append(element)
        if name == "p":
            self._paragraph, self._parts = element, []
        elif name == "br":
            self._parts.append("<br>")
        elif name == "span" and "begin" in attributes:
            self._parts.append(time_tag(element.begin))

    def end(self, name: str) -> None:
        self._around.pop()
        if name != "p" or self._paragraph is None:
            return
        begin, end = self._paragraph.begin, self._paragraph.end
        if end is not None:
            # The source's own line ends mean no more than spaces.
            self.cues.append(Cue(begin, end, (" ".join("".join(self._parts).split()),)))
            check_cues(len(self.cues))
        self._paragraph = None

    def data(self, text: str) -> None:
        if self._paragraph is not None:
            self._parts.append(html.escape(text, quote=False))

    def _set_rates(self, attributes: dict[str, str]) -> None:
        try:
            above, below = map(float, attributes.get("frameRateMultiplier", "1 1").replace(":", " ").split())
            frames = float(attributes.get("frameRate", "30")) * above / below
            ticks = float(attributes.get("tickRate", "0")) or (frames if "frameRate" in attributes else 1.0)
        except (ValueError, ZeroDivisionError) as error:
            raise BadInput("its frame rate or tick rate is not a number") from error
        if not (0 < frames < 1e6 and 0 < ticks < 1e12):
            raise BadInput("its frame rate or tick rate is impossible")
        self._rates = {"f": frames, "t": ticks}

    def _timed(self, name: str, attributes: dict[str, str], around: _Element) -> _Element:
        begin = self._time(attributes, "begin")
        end, duration = self._time(attributes, "end"), self._time(attributes, "dur")
        base = around.begin
        # Times of words within the paragraph only if they count from the document's beginning do.
        if name == "span" and begin is not None and around.end is not None and around.begin + begin >= around.end:
            base = 0.0
        start = base + begin if begin is not None else around.begin
        limits = [base + end] if end is not None else []
        limits += [start + duration] if duration is not None else []
        limits += [around.end] if around.end is not None else []
        return _Element(name, start, min(limits) if limits else None)

    def _time(self, attributes: dict[str, str], key: str) -> float | None:
        text = attributes.get(key)
        if text is None:
            return None
        text = text.strip()
        if found := _CLOCK.fullmatch(text):
            hours, minutes, seconds, fraction, frames = found.groups()
            whole = int(hours) * 3600 + int(minutes) * 60 + int(seconds)
            return whole + float(f"0.{fraction or 0}") + int(frames or 0) / self._rates["f"]
        if found := _SHORT_CLOCK.fullmatch(text):
            return int(found[1]) * 60 + float(found[2])
        if found := _OFFSET.fullmatch(text):
            value, unit = float(found[1]), found[2]
            return value * _SECONDS[unit] if unit in _SECONDS else value / self._rates[unit]
        raise BadInput(f"{key}={text[:40]!r} is not a time of TTML, such as 00:00:01.500 or 1.5s")
