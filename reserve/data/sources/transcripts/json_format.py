"""Word lists in JSON, as Whisper, its relatives and Vosk write them."""

from __future__ import annotations

from typing import Any

from reserve.data.sources.transcripts.cues import spoken_text, spread_words
from reserve.data.types import Word
from reserve.errors import BadInput

# Keys that hold the parts of a transcript, most exact first (Whisper: segments, then words, or both side by side;
# Vosk: result; its command line: monologues, then terms), and keys that hold the text of a part.
_LISTS = ("words", "segments", "result", "results", "monologues", "terms")
_TEXTS = ("word", "text", "content", "punctuated_word")
_MAX_DEPTH = 8
_MAX_SECONDS = 1e9


def parse_json(values: list[Any]) -> list[Word]:
    """The words of the decoded values of a JSON transcript, in order.

    Reads lists of words (`word` or `text`, `start`, `end` in seconds) and objects or lists that hold such lists under
    `words`, `segments`, `result` or `monologues`, also in the first of `alternatives`. If the words of a segment lack
    times, its text is spread over its time.
    """
    words = [word for value in values for word in _words(value, 0)]
    if not words:
        raise BadInput("no words with start and end times in its JSON")
    return words


def _words(node: Any, depth: int) -> list[Word]:
    if depth > _MAX_DEPTH:
        raise BadInput("its JSON is nested too deeply for a transcript")
    if isinstance(node, list):
        return [word for item in node for word in _words(item, depth + 1)]
    if not isinstance(node, dict):
        return []
    lists = [node[name] for name in _LISTS if isinstance(node.get(name), list) and node[name]]
    parts = next(filter(_all_timed, lists), lists[0] if lists else None)
    if parts is not None and (_span(node) is None or _all_timed(parts)):
        return _words(parts, depth + 1)
    if isinstance(alternatives := node.get("alternatives"), list) and alternatives:
        return _words(alternatives[0], depth + 1)
    return _spread(node)


def _all_timed(parts: list[Any]) -> bool:
    return all(isinstance(part, dict) and _span(part) is not None for part in parts)


def _span(node: dict[str, Any]) -> tuple[float, float] | None:
    """Start and end of a part in seconds; None unless it has both."""
    start, end = _number(node.get("start")), _number(node.get("end"))
    return None if start is None or end is None else (start, end)


def _number(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < _MAX_SECONDS:
        return None
    return float(value)


def _spread(node: dict[str, Any]) -> list[Word]:
    span = _span(node)
    text = next((node[name] for name in _TEXTS if isinstance(node.get(name), str)), "")
    return [] if span is None else spread_words(spoken_text(text), *span)
