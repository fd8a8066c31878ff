"""YouTube's own formats as yt-dlp saves them: .json3, and .srv1, .srv2 and .srv3 in XML."""

from __future__ import annotations

import html
import math
from typing import Any

from reserve.data.sources.transcripts.cues import cues_to_words
from reserve.data.sources.transcripts.limits import check_cues
from reserve.data.sources.transcripts.markup import decode_entities, time_tag
from reserve.data.sources.transcripts.xml_events import read_xml
from reserve.data.types import Cue, Word
from reserve.errors import BadInput

_MAX_MILLISECONDS = 1e12


def parse_json3(value: Any) -> list[Word]:
    """The words of a decoded .json3: events in milliseconds whose parts may have offsets."""
    events = value.get("events") if isinstance(value, dict) else None
    if not isinstance(events, list):
        raise BadInput('not json3: no list "events" in it')
    check_cues(len(events))
    return cues_to_words(cue for event in events if (cue := _json3_cue(event)) is not None)


def _json3_cue(event: Any) -> Cue | None:
    parts = event.get("segs") if isinstance(event, dict) else None
    start = _milliseconds(event.get("tStartMs", 0)) if isinstance(parts, list) else None
    if start is None:
        return None
    duration = _milliseconds(event.get("dDurationMs", 0)) or 0.0
    assert isinstance(parts, list)
    parts = [part for part in parts if isinstance(part, dict) and isinstance(part.get("utf8"), str)]
    texts = []
    for part in parts:
        offset = _milliseconds(part.get("tOffsetMs"))
        texts.append(_escaped(part["utf8"], None if offset is None else start + offset))
    return _cue(start, duration, "".join(texts))


def _milliseconds(value: Any) -> float | None:
    """Seconds of a number of milliseconds."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number / 1000 if abs(number) < _MAX_MILLISECONDS else None


def _seconds(value: str | None) -> float | None:
    try:
        number = float(value or "0")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _escaped(text: str, time: float | None) -> str:
    text = html.escape(text, quote=False)
    return text if time is None or not text.strip() else time_tag(time) + text


def _cue(start: float, duration: float, text: str) -> Cue | None:
    return Cue(start, start + duration, tuple(text.split("\n"))) if text.strip() else None


def parse_srv(text: str) -> list[Word]:
    """The words of .srv1 (`<text start="1.5" dur="2">`), .srv2 (`<text t="1500" d="2000">`) or .srv3 (`<p t="1500"
    d="2000"><s t="300">`)."""
    check_cues(text.count("<p ") + text.count("<text "))
    reader = _SrvReader()
    read_xml(text, reader.start, reader.end, reader.data)
    if not reader.is_srv:
        raise BadInput("not srv: no element timedtext or transcript in it")
    return cues_to_words(reader.cues)


class _SrvReader:
    def __init__(self) -> None:
        self.cues: list[Cue] = []
        self.is_srv = False
        self._cue: tuple[float, float] | None = None
        self._parts: list[str] = []
        self._time: float | None = None

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name in ("timedtext", "transcript"):
            self.is_srv = True
        elif name in ("p", "text"):
            if "start" in attributes:
                start, duration = _seconds(attributes["start"]), _seconds(attributes.get("dur"))
            else:
                start, duration = _milliseconds(attributes.get("t", "0")), _milliseconds(attributes.get("d", "0"))
            if start is None:
                raise BadInput(f"a {name} without a time: {attributes.get('t', attributes.get('start'))!r:.40}")
            self._cue, self._parts, self._time = (start, duration or 0.0), [], None
        elif name == "s" and self._cue is not None:
            offset = _milliseconds(attributes.get("t"))
            self._time = None if offset is None else self._cue[0] + offset
        elif name == "br":
            self._parts.append("<br>")

    def end(self, name: str) -> None:
        if name == "s":
            self._time = None
        elif name in ("p", "text") and self._cue is not None:
            cue = _cue(*self._cue, "".join(self._parts))
            self._cue = None
            if cue is not None:
                self.cues.append(cue)
                check_cues(len(self.cues))

    def data(self, text: str) -> None:
        if self._cue is not None:
            # Once more, since .srv1 escapes twice: &amp;#39; is an apostrophe.
            self._parts.append(_escaped(decode_entities(text), self._time))
            self._time = None
