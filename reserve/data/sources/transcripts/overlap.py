"""When the speech of captions ends that are shown for longer, such as YouTube's: each stays until the next but one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from reserve.data.sources.transcripts.captions import Caption

_FASTEST = 0.1
"""Seconds a word at least. A caption that has less before the next one starts is spoken at the same time."""
_SHOWN_TOO_SHORTLY = 0.05
"""Seconds a word, below which the end of a caption cannot be right: it is missing, or was cut off."""
_SECONDS_PER_CHARACTER = 0.08
"""A slow speaker's time, for captions without an end."""


def end_where_next_begins(captions: Sequence[Caption]) -> list[Caption]:
    """`captions`, sorted by start, with the times in which they are spoken.

    The speech of a caption ends where the next one begins. Captions that start together, or too close for the words
    between them, become one: their words share its time in their order. A caption without an end, or with an end that
    is too early for its words, lasts as long as a slow speaker needs, at most until the next one begins.
    """
    groups = list(_simultaneous(captions))
    next_starts = [*(group.start for group in groups), None][1:]
    return [replace(group, end=_end(group, start)) for group, start in zip(groups, next_starts, strict=False)]


def _count_words(caption: Caption) -> int:
    return len(caption.text.split())


def _end(caption: Caption, next_start: float | None) -> float:
    end = caption.end
    if not caption.spans and end - caption.start < _SHOWN_TOO_SHORTLY * _count_words(caption):
        end = caption.start + _SECONDS_PER_CHARACTER * len("".join(caption.text.split()))
    if next_start is not None and next_start > caption.start:
        end = min(end, next_start)
    return max(end, caption.start)


def _simultaneous(captions: Sequence[Caption]) -> Iterator[Caption]:
    group: list[Caption] = []
    words, end = 0, 0.0
    for caption in captions:
        if group and not _starts_within(group, words, end, caption):
            yield _joined(group)
            group, words, end = [], 0, 0.0
        group.append(caption)
        words += _count_words(caption)
        end = max(caption.end, end)
    if group:
        yield _joined(group)


def _starts_within(group: Sequence[Caption], words: int, end: float, caption: Caption) -> bool:
    """Whether `caption` starts while the first words of `group` are spoken. Captions with word times need no help."""
    if group[0].spans or caption.spans:
        return False
    start = group[0].start
    return caption.start <= start or (caption.start < end and caption.start - start < _FASTEST * words)


def _joined(group: Sequence[Caption]) -> Caption:
    if len(group) == 1:
        return group[0]
    return Caption(group[0].start, max(caption.end for caption in group), "\n".join(caption.text for caption in group))
