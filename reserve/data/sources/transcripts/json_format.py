"""Transcripts in JSON, as speech recognisers, aligners and services write them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from reserve.data.sources.transcripts.captions import Caption, Span
from reserve.data.sources.transcripts.cues import captions_to_words
from reserve.data.sources.transcripts.json_fields import FIRST_OF, NOT_WORDS, PARTS, UNKNOWN, Times, text_of, times_of
from reserve.data.sources.transcripts.limits import MAX_LINE, check_cues, check_words
from reserve.data.sources.transcripts.markup import read_markup
from reserve.data.sources.transcripts.youtube_formats import parse_json3
from reserve.data.types import Cue, Word
from reserve.errors import BadInput

_MAX_DEPTH = 12
_LONGEST_WORD = 1.0
"""Seconds of a word of which only the start or the end is known."""
_SLOWEST = 5.0
"""Seconds a word, in the middle of a transcript, that nobody takes."""
_MILLISECONDS = 50.0
"""Units a word from which whole numbers can only be milliseconds: as hundredths, they were slower than speech."""


def parse_json(values: list[Any]) -> list[Word]:
    """The words of the decoded values of a JSON transcript.

    Reads parts and words under the keys of json_fields.py, at any depth. A word without times lies between its
    neighbours of the same segment; a segment without timed words shares out its time. Whole numbers that are too large
    for seconds are milliseconds. Raises BadInput if no part has a text and a time, or if the times cannot be seconds.
    """
    if len(values) == 1 and isinstance(values[0], dict) and isinstance(values[0].get("events"), list):
        return parse_json3(values[0])
    captions = [caption for value in values for caption in _captions(value, 0)]
    check_cues(len(captions))
    if not captions:
        raise BadInput("no words with start and end times in its JSON")
    return captions_to_words(_in_seconds(captions))


def _captions(node: Any, depth: int) -> list[Caption]:
    """The captions below `node`: one for each segment, or for a list of words without segments."""
    if depth > _MAX_DEPTH:
        raise BadInput("its JSON is nested too deeply for a transcript")
    if isinstance(node, list):
        if node and all(map(_is_leaf, node)):
            return _of_words(node, UNKNOWN) if _are_words(node) else [c for item in node for c in _of_segment(item)]
        return _without_summary([caption for item in node for caption in _captions(item, depth + 1)])
    if not isinstance(node, dict):
        return []
    for name in PARTS:
        parts = node.get(name)
        if name == "tiers" and isinstance(parts, dict):
            return [c for tier in _word_tiers(parts) for c in _captions(tier, depth + 1)]
        if isinstance(parts, list) and parts and all(map(_is_leaf, parts)) and _are_words(parts):
            found = _of_words(parts, times_of(node))
        else:
            found = _captions(parts, depth + 1)
        if found:
            return found
    for name in FIRST_OF:
        if isinstance(guesses := node.get(name), list) and guesses:
            return _captions(guesses[0], depth + 1) or _of_segment(node)
    return _of_segment(node)


def _word_tiers(tiers: dict[str, Any]) -> Iterator[Any]:
    """The tiers of words of an alignment, one for each speaker; the others have phones."""
    for name, tier in tiers.items():
        if name.lower() == "words" or name.lower().endswith("- words"):
            yield tier


def _is_leaf(item: Any) -> bool:
    """Whether an item has no parts: a word, a punctuation mark, or a segment without words."""
    if isinstance(item, list):
        return times_of(item) != UNKNOWN
    if not isinstance(item, dict) or any(isinstance(item.get(name), list) for name in PARTS):
        return False
    guesses: list[Any] = next((item[name] for name in FIRST_OF if isinstance(item.get(name), list)), [])
    return all(isinstance(guess, dict) and _is_leaf(guess) for guess in guesses[:1])


def _are_words(items: Sequence[Any]) -> bool:
    """Whether most items have a single word, so that they are words rather than segments."""
    counts = [len(text_of(item).split()) for item in items]
    return 2 * sum(count > 1 for count in counts) < sum(count > 0 for count in counts)


def _of_segment(node: Any) -> list[Caption]:
    """The caption of a segment that has no timed words."""
    start, end = times_of(node)
    text = text_of(node)
    if start is None or not text.strip():
        return []
    if len(text) > MAX_LINE:
        raise BadInput(f"a text of {len(text)} characters without word times; a transcript has at most {MAX_LINE}")
    # Without an end it lasts until the next one.
    return [read_markup(Cue(start, start if end is None else end, tuple(text.split("\n"))))]


def _without_summary(captions: list[Caption]) -> list[Caption]:
    """`captions` without a last one that says again all that those before it say, for the sake of speakers."""
    if len(captions) > 1 and captions[-1].start <= captions[0].start:
        before = [word for caption in captions[:-1] for word in caption.text.split()]
        if before == captions[-1].text.split():
            return captions[:-1]
    return captions


@dataclass(slots=True)
class _Entry:
    text: str
    times: Times


def _of_words(items: Sequence[Any], around: Times) -> list[Caption]:
    """One caption of words; none if no word has a time. `around` are the times of their segment."""
    entries: list[_Entry] = []
    for item in items:
        kind = str(item.get("type", "")).lower() if isinstance(item, dict) else ""
        text = text_of(item)
        if kind.startswith("punct") and entries:
            entries[-1].text += text.strip()
        elif text.strip() and kind not in NOT_WORDS:
            entries.append(_Entry(text, times_of(item)))
    if not any(entry.times != UNKNOWN for entry in entries):
        return []
    check_words(len(entries))
    longest = max(len(entry.text) for entry in entries)
    if longest > MAX_LINE:
        raise BadInput(f"a word of {longest} characters")
    _complete_times(entries, around)
    known = [entry.times for entry in entries if entry.times.start is not None]
    spans, parts, size = [], [], 0
    # Where words carry the space before them, one without it goes on with the word before: " twenty", "-five".
    separator = "" if 2 * sum(entry.text[0].isspace() for entry in entries[1:]) > len(entries) - 1 > 0 else " "
    for entry in entries:
        part = separator + " ".join(entry.text.split()) if separator else entry.text
        parts.append(part)
        if entry.times.start is not None:
            spans.append(Span(size, size + len(part), entry.times.start, entry.times.end))
        size += len(part)
    start = known[0].start if around.start is None else around.start
    end = known[-1].end if around.end is None else around.end
    assert start is not None
    return [Caption(start, start if end is None else end, "".join(parts), tuple(spans))]


def _complete_times(entries: Sequence[_Entry], around: Times) -> None:
    """Gives words with only a start an end, and those with only an end a start: that of a neighbour if it is near."""
    for place, entry in enumerate(entries):
        start, end = entry.times
        if end is None and start is not None:
            after = entries[place + 1].times.start if place + 1 < len(entries) else around.end
            entry.times = Times(start, max(start, min(start + _LONGEST_WORD, start + 1e9 if after is None else after)))
        elif start is None and end is not None:
            before = entries[place - 1].times.end if place else around.start
            entry.times = Times(min(end, max(end - _LONGEST_WORD, 0.0 if before is None else before)), end)


def _in_seconds(captions: list[Caption]) -> list[Caption]:
    """`captions` in seconds if they were in milliseconds."""
    typical = median(_seconds_per_word(captions))
    if typical <= _SLOWEST:
        return captions
    numbers = [number for caption in captions for number in (caption.start, caption.end)]
    numbers += [span.start for caption in captions for span in caption.spans]
    if typical < _MILLISECONDS or not all(map(float.is_integer, numbers)):
        raise BadInput(f"its words take {typical:.0f} s each: its times are not in seconds")
    return [
        replace(
            caption,
            start=caption.start / 1000,
            end=caption.end / 1000,
            spans=tuple(
                span._replace(start=span.start / 1000, end=None if span.end is None else span.end / 1000)
                for span in caption.spans
            ),
        )
        for caption in captions
    ]


def _seconds_per_word(captions: Sequence[Caption]) -> Iterator[float]:
    for caption in captions:
        if caption.spans:
            yield from (span.end - span.start for span in caption.spans if span.end is not None)
        else:
            yield (caption.end - caption.start) / max(len(caption.text.split()), 1)
