"""Forced alignments of the GRID corpus (.align): lines `start end word`, times in 1/25000 s."""

from __future__ import annotations

from reserve.data.sources.transcripts.limits import check_lines, check_words
from reserve.data.types import Word
from reserve.errors import BadInput

_TICKS_PER_SECOND = 25_000
_SILENCES = frozenset({"sil", "sp"})


def parse_align(text: str) -> list[Word]:
    """The words of an alignment, without silences."""
    words = []
    check_words(text.count("\n"))
    for number, line in enumerate(check_lines(text), start=1):
        if not line.strip():
            continue
        try:
            start, end, word = line.split()
            entry = Word(word, int(start) / _TICKS_PER_SECOND, int(end) / _TICKS_PER_SECOND)
        except (ValueError, OverflowError) as error:
            raise BadInput(f"line {number} is not 'start end word' in whole 1/25000 s: {line[:40]!r}") from error
        if word not in _SILENCES:
            words.append(entry)
    return words
