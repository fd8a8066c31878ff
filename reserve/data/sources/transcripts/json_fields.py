"""The fields of JSON transcripts: how programs and services name a text and its times, and in which units."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

from reserve.data.sources.transcripts.time_lines import parse_time

PARTS = (
    *("words", "Words", "segments", "result", "results", "monologues", "terms", "elements", "items", "channels"),
    *("transcription", "chunks", "recognizedPhrases", "phrases", "fragments", "timestamps", "utterances", "sentences"),
    *("paragraphs", "tiers", "entries", "response"),
)
"""Keys of the parts of a transcript, most exact first. Parts under several keys say the same twice."""
FIRST_OF = ("alternatives", "nBest", "NBest")
"""Keys of several guesses, best first."""
_TEXTS = (
    *("punctuated_word", "word", "Word", "text", "content", "body", "value", "displayText", "display", "Display"),
    *("DisplayText", "transcript", "lexical"),
)
NOT_WORDS = frozenset({"spacing", "audio_event", "silence", "sil"})
_MAX_SECONDS = 1e9
_MAX_NUMBER = 1e16
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)s")
_ISO_DURATION = re.compile(r"PT(?:(\d{1,4})H)?(?:(\d{1,6})M)?(?:(\d{1,9}(?:\.\d{1,12})?)S)?")
_NUMBER = re.compile(r"\s*-?\d{1,15}(?:\.\d{1,15})?\s*")


class _Names(NamedTuple):
    """Keys of a start, an end and a duration, in units of `unit` seconds. Unless `numbers`, plain numbers are something
    else: places in the text, or time in a unit that other keys name."""

    start: str
    end: str | None
    duration: str | None
    unit: float = 1.0
    numbers: bool = True


_TIMES = (
    _Names("start", "end", "duration"),
    _Names("start_time", "end_time", "duration"),
    _Names("startTime", "endTime", "duration"),
    _Names("begin", "end", "duration"),
    _Names("ts", "end_ts", None),
    _Names("xmin", "xmax", None),
    _Names("from", "to", None, 0.001),
    _Names("offsetInTicks", None, "durationInTicks", 1e-7),
    _Names("Offset", None, "Duration", 1e-7),
    _Names("offsetMilliseconds", None, "durationMilliseconds", 0.001),
    _Names("startOffset", "endOffset", None, numbers=False),
    _Names("start_offset", "end_offset", None, numbers=False),
    _Names("offset", None, "duration", numbers=False),
)


class Times(NamedTuple):
    """Start and end of a part in seconds, None where unknown."""

    start: float | None
    end: float | None


UNKNOWN = Times(None, None)


def times_of(node: Any) -> Times:
    """The times of a part: an object with any of the keys above, or a list `[start, end, text]` or `[text, start,
    end]`."""
    if isinstance(node, list):
        numbers = [value for value in (_number(item, 1.0, numbers=True) for item in node[:3]) if value is not None]
        return Times(*numbers) if len(node) == 3 and len(numbers) == 2 else UNKNOWN
    if isinstance(pair := node.get("timestamp"), list) and len(pair) == 2:
        return Times(*(_number(value, 1.0, numbers=True) for value in pair))
    if isinstance(node.get("offsets"), dict):
        node = node["offsets"]
    for names in _TIMES:
        start, end, duration = (
            _number(node.get(key), names.unit, numbers=names.numbers) if key else None
            for key in (names.start, names.end, names.duration)
        )
        if end is None and start is not None and duration is not None:
            end = start + duration
        if start is not None or (end is not None and names.end != "end"):
            return Times(start, end)
    return Times(None, _number(node.get("end"), 1.0, numbers=True))


def text_of(node: Any) -> str:
    """The text of a part."""
    if isinstance(node, list):
        return next((item for item in node[:3] if isinstance(item, str) and not _NUMBER.fullmatch(item)), "")
    for name in _TEXTS:
        if isinstance(node.get(name), str):
            return node[name]
    if isinstance(lines := node.get("lines"), list):
        return " ".join(line for line in lines if isinstance(line, str))
    for name in FIRST_OF:
        if isinstance(guesses := node.get(name), list) and guesses and isinstance(guesses[0], dict):
            return text_of(guesses[0])
    return ""


def _number(value: Any, unit: float, *, numbers: bool) -> float | None:
    """Seconds of a number, a number in a string, a duration (1.5s, PT1.5S, seconds and nanos), or a clock time."""
    if isinstance(value, bool):
        return None
    if isinstance(value, dict):
        parts = [_number(value.get(key, 0), 1.0, numbers=True) for key in ("seconds", "nanos")]
        known = any(key in value for key in ("seconds", "nanos")) and None not in parts
        return _bounded(parts[0] + parts[1] * 1e-9) if known else None  # type: ignore[operator]
    if isinstance(value, str):
        if found := _DURATION.fullmatch(value):
            return _bounded(float(found[1]))
        if value != "PT" and (found := _ISO_DURATION.fullmatch(value)):
            hours, minutes, seconds = (float(part or 0) for part in found.groups())
            return _bounded(hours * 3600 + minutes * 60 + seconds)
        if ":" in value:
            return parse_time(value)
        if not _NUMBER.fullmatch(value):
            return None
        value = float(value)
    if not numbers or not isinstance(value, int | float) or not abs(value) < _MAX_NUMBER:
        return None
    return _bounded(value * unit)


def _bounded(seconds: float) -> float | None:
    return float(seconds) if math.isfinite(seconds) and abs(seconds) < _MAX_SECONDS else None
