"""Turns captions into spoken words, each with its own times."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

from reserve.data.types import Cue, Word

_TAG = re.compile(r"</?[A-Za-z][^<>]*>|<\d[\d:.]*>|\{\\[^{}]*\}")
_INVISIBLE = re.compile(r"[\u200b-\u200f\u202a-\u202e\u2060\ufeff\u00ad]")
_SOUND_DESCRIPTION = re.compile(r"\[[^\[\]]*\]|[♩-♯]+")
_PARENTHESISED = re.compile(r"\([^()]*\)")
_SPEAKER_CHANGE = re.compile(r"^(?:(?:>>+|[-–—])\s*)+")
# Captioners write names in capitals; a lower-case word before a colon is usually speech.
_SPEAKER_NAME = re.compile(r"^[A-Z][A-Z0-9 .'&-]{1,30}:\s+(?=\S)")


def spoken_text(text: str) -> str:
    """`text` without markup, sound descriptions such as [Music] or (applause) alone on a line, musical notes and
    speaker names in capitals; entities decoded, white space collapsed."""
    text = _INVISIBLE.sub("", html.unescape(_TAG.sub("", text)))
    text = " ".join(_SOUND_DESCRIPTION.sub(" ", text).split())
    if _PARENTHESISED.fullmatch(text):
        return ""
    return _SPEAKER_NAME.sub("", _SPEAKER_CHANGE.sub("", text))


def spread_words(text: str, start: float, end: float) -> list[Word]:
    """The words of clean `text`, which divide the time from `start` to `end` in proportion to their lengths."""
    words = text.split()
    total = sum(map(len, words))
    spread, done = [], 0
    for word in words:
        first, done = done, done + len(word)
        spread.append(
            Word(word, start + (end - start) * first / total, start + (end - start) * done / total),
        )
    return spread


def cue_words(cue: Cue) -> list[Word]:
    """The words of a cue without word times."""
    lines = [spoken_text(line) for line in cue.lines]
    return spread_words(spoken_text(" ".join(filter(None, lines))), cue.start, cue.end)


def drop_repeated_lines(cues: Sequence[Cue], *, is_new: re.Pattern[str] | None = None) -> list[Cue]:
    """`cues` without the lines that rolling captions repeat from the cue before.

    A line is repeated if the last lines of one cue open the next; a line that matches `is_new` never is. Drops cues
    that are left without text.
    """
    kept: list[Cue] = []
    previous: list[str] = []
    for cue in cues:
        lines = [(line, spoken_text(line), bool(is_new and is_new.search(line))) for line in cue.lines]
        lines = [line for line in lines if line[1]]
        plain = [None if new else text for _, text, new in lines]
        overlap = next(
            (size for size in range(min(len(previous), len(plain)), 0, -1) if previous[-size:] == plain[:size]),
            0,
        )
        if len(lines) > overlap:
            kept.append(Cue(cue.start, cue.end, tuple(line for line, _, _ in lines[overlap:])))
        if lines:
            previous = [text for _, text, _ in lines]
    return kept


def is_rolling(cues: Sequence[Cue]) -> bool:
    """Whether most cues begin with the last line of the cue before: rolling captions."""
    texts = [[text for line in cue.lines if (text := spoken_text(line))] for cue in cues]
    texts = [lines for lines in texts if lines]
    repeats = sum(before[-1] == after[0] for before, after in pairwise(texts))
    return len(texts) > 3 and repeats > len(texts) // 2


def plain_cues_to_words(cues: Iterable[Cue]) -> list[Word]:
    """The words of cues without word times. Removes repeated lines from rolling captions."""
    cues = sorted(cues, key=lambda cue: cue.start)
    if is_rolling(cues):
        cues = drop_repeated_lines(cues)
    return [word for cue in cues for word in cue_words(cue)]
