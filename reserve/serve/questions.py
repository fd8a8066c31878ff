"""What visitors send to ask and to search, checked."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Any

from reserve.serve.limits import Limits

MASK = "<|MASK|>"
_BLANK = re.compile(r"_{2,}")


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its answers, about a video from `start` to `stop` seconds, None for its end."""

    text: str
    answers: tuple[str, ...]
    start: float
    stop: float | None

    @classmethod
    def from_json(cls, sent: Any, limits: Limits) -> Question:
        """Two or more underscores stand for the MASK. Raises ValueError with a message for the visitor."""
        fields = _fields(sent, {"question", "answers", "start", "stop"})
        text = _text(fields, "question", limits.question_characters)
        answers = fields.get("answers")
        if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
            raise ValueError("answers must be a list of texts")
        answers = [answer.strip() for answer in answers if answer.strip()]
        if not 2 <= len(answers) <= limits.answers:
            raise ValueError(f"give 2 to {limits.answers} answers; got {len(answers)}")
        if any(len(answer) > limits.answer_characters for answer in answers):
            raise ValueError(f"an answer may have {limits.answer_characters} characters")
        start = _seconds(fields, "start") or 0.0
        stop = _seconds(fields, "stop")
        if stop is not None and not stop > start:
            raise ValueError(f"the end must be after the start, {start:g} s; got {stop:g} s")
        return cls(_BLANK.sub(MASK, text), tuple(answers), start, stop)


@dataclass(frozen=True, slots=True)
class Sound:
    """The sound of a video from `start` to `stop` seconds."""

    video: str
    start: float
    stop: float


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for, a text or a sound, in which videos, None for all, and how many moments to show at most."""

    wanted: str | Sound
    videos: tuple[str, ...] | None
    most: int

    @classmethod
    def from_json(cls, sent: Any, limits: Limits) -> Search:
        """Raises ValueError with a message for the visitor."""
        fields = _fields(sent, {"text", "sound", "videos", "most"})
        if ("text" in fields) == ("sound" in fields):
            raise ValueError("search for a text or for a sound")
        videos = fields.get("videos")
        if videos == "all":
            videos = None
        elif not isinstance(videos, list) or not videos or not all(isinstance(video, str) for video in videos):
            raise ValueError('videos must be a list of at least one id, or "all"')
        most = fields.get("most", 20)
        if not isinstance(most, int) or not 1 <= most <= limits.moments:
            raise ValueError(f"most must be from 1 to {limits.moments}")
        wanted = _text(fields, "text", limits.question_characters) if "text" in fields else _sound(fields["sound"])
        return cls(wanted, None if videos is None else tuple(dict.fromkeys(videos)), most)


def _sound(sent: Any) -> Sound:
    fields = _fields(sent, {"video", "start", "stop"})
    start, stop = _seconds(fields, "start"), _seconds(fields, "stop")
    if not isinstance(fields.get("video"), str) or start is None or stop is None or not stop > start:
        raise ValueError("a sound has a video, a start and a stop after it, in seconds")
    return Sound(fields["video"], start, stop)


def _fields(sent: Any, allowed: set[str]) -> dict[str, Any]:
    if not isinstance(sent, dict):
        raise ValueError("expected a JSON object")
    if unknown := sent.keys() - allowed:
        raise ValueError(f"unknown field {min(unknown)[:50]!r}; allowed are {', '.join(sorted(allowed))}")
    return sent


def _text(fields: dict[str, Any], name: str, most: int) -> str:
    text = fields.get(name)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"the {name} is empty")
    if len(text) > most:
        raise ValueError(f"the {name} has {len(text)} characters; at most {most} are allowed")
    return text.strip()


def _seconds(fields: dict[str, Any], name: str) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise ValueError(f"{name} must be a time in seconds, 0 or more")
    return float(value)
