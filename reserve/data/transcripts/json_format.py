"""Word lists in JSON, as Whisper, its relatives and Vosk write them."""

from __future__ import annotations

from typing import Any

from reserve.data.errors import BadInput
from reserve.data.transcripts.cues import spoken_text, spread_words
from reserve.data.types import Word

# Where the parts of a transcript are (Whisper: segments, then words; Vosk: result) and what names a part's text.
_LISTS = ("segments", "words", "result", "results")
_TEXTS = ("word", "text", "content", "punctuated_word")
_MAX_DEPTH = 8
_MAX_SECONDS = 1e9


def parse_json(value: Any) -> list[Word]:
    """Words of a decoded JSON transcript.

    Understood are lists of words (`word` or `text`, `start`, `end` in seconds) and objects or lists that hold such
    lists under `segments`, `words` or `result`. A segment whose words lack times spreads its text over its time.
    """
    words = _words(value, 0)
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
    parts = next((node[name] for name in _LISTS if isinstance(node.get(name), list) and node[name]), None)
    if parts is not None and (_span(node) is None or _all_timed(parts)):
        return _words(parts, depth + 1)
    return _spread(node)


def _all_timed(parts: list[Any]) -> bool:
    return all(isinstance(part, dict) and _span(part) is not None for part in parts)


def _span(node: dict[str, Any]) -> tuple[float, float] | None:
    """Start and end of a part in seconds; None where it does not have both."""
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
