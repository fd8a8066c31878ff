"""Rejects implausible tracks of words: captions of the wrong kind teach worse than none (SPEC 1)."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

from reserve.data.types import Word
from reserve.errors import BadInput

MAX_WORDS_PER_SECOND = 10.0
"""Over the whole track; the fastest speakers reach about 7."""
MIN_WORD_LIKE = 0.6
"""Minimum share of entries that look like words, from the reference."""
MAX_LENGTH_VARIANCE = 25.0
"""Maximum variance of the words' lengths in characters. The reference allows 10 for English; languages with compounds
need more."""
MAX_BACKWARD = 0.1
"""Maximum share of words that start more than BACKWARD_SECONDS before their predecessor, as when two people speak."""
BACKWARD_SECONDS = 0.5
MAX_WORD_LENGTH = 30
"""Characters beyond which an entry is unsplit text, not a word."""
_MIN_WORDS_FOR_VARIANCE = 20


def plausible_words(words: Sequence[Word]) -> list[Word]:
    """`words` in order of time. Raises BadInput with the reason if they cannot be what was spoken.

    Rejects tracks without words, with times that are not finite, run backwards or end before they start, with more than
    MAX_WORDS_PER_SECOND, or whose entries do not look like words (MIN_WORD_LIKE, MAX_LENGTH_VARIANCE).
    """
    if not words:
        raise BadInput("no words in it")
    _check_times(words)
    _check_text([word.text for word in words])
    kept = [Word(word.text, max(word.start, 0.0), max(word.end, word.start, 0.0)) for word in words if word.end >= 0]
    if not kept:
        raise BadInput("all its words lie before time 0")
    kept.sort(key=lambda word: word.start)
    seconds = max(max(word.end for word in kept) - kept[0].start, 1.0)
    if len(kept) / seconds > MAX_WORDS_PER_SECOND:
        raise BadInput(
            f"{len(kept)} words in {seconds:.1f} s; nobody speaks more than {MAX_WORDS_PER_SECOND:g} words a second"
        )
    return kept


def _check_times(words: Sequence[Word]) -> None:
    if not all(math.isfinite(word.start) and math.isfinite(word.end) for word in words):
        raise BadInput("some of its times are not numbers")
    reversed_words = sum(word.end < word.start for word in words)
    if reversed_words > MAX_BACKWARD * len(words):
        raise BadInput(f"{reversed_words} of its {len(words)} words end before they start")
    backward = sum(after.start < before.start - BACKWARD_SECONDS for before, after in pairwise(words))
    if backward > MAX_BACKWARD * len(words):
        raise BadInput(f"its times run backwards at {backward} of {len(words)} words")


def _check_text(texts: Sequence[str]) -> None:
    word_like = sum(map(_is_word_like, texts))
    if word_like < MIN_WORD_LIKE * len(texts):
        raise BadInput(f"only {word_like} of its {len(texts)} entries look like words")
    mean = fmean(map(len, texts))
    variance = fmean((len(text) - mean) ** 2 for text in texts)
    if len(texts) >= _MIN_WORDS_FOR_VARIANCE and variance > MAX_LENGTH_VARIANCE:
        raise BadInput(
            f"its words' lengths have a variance of {variance:.0f}; speech has at most {MAX_LENGTH_VARIANCE:g}"
        )


def _is_word_like(text: str) -> bool:
    if len(text) > MAX_WORD_LENGTH or not any(map(str.isalnum, text)):
        return False
    return not any(unicodedata.category(char) in ("Cc", "Co", "Cn") or char == "\ufffd" for char in text)
