"""Turns captions into spoken words, each with its own times."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from reserve.data.sources.transcripts.captions import Caption, caption_words
from reserve.data.sources.transcripts.highlight import merge_highlighted
from reserve.data.sources.transcripts.limits import MAX_LINE, MAX_SHOWN_WORDS, check_cues, check_words
from reserve.data.sources.transcripts.markup import read_markup
from reserve.data.sources.transcripts.overlap import end_where_next_begins
from reserve.data.sources.transcripts.rolling import drop_repeated
from reserve.data.sources.transcripts.speakers import blank_speakers
from reserve.data.sources.transcripts.time_lines import EXACT_TIME
from reserve.data.types import Cue, Word
from reserve.errors import BadInput

MAX_REVERSED = 0.1
"""Share of the cues that may end before they start: a typing error here and there."""
_SOUND = re.compile(
    r"(?:\[[^\[\]]*\]|【[^【】]*】|［[^［］]*］|〔[^〔〕]*〕)(?:\s?[:：](?=\s))?|[♩-♯\U0001f3b5\U0001f3b6\U0001f3bc]+"
)
_LINE_OF_SOUND = re.compile(r"^[ \t]*(?:\([^()\n]*\)|（[^（）\n]*）|\*[^*\n]*\*)[ \t]*$", re.MULTILINE)
# Punctuation by itself. Signs such as & and % are read out, and so are < and > alone.
_PUNCTUATION = re.compile(r"(?<!\S)(?:[-–—‐‑‒―−*_|~•·…#.:：,;»«]+|[-=]*>>+|[-=–—]+>)(?!\S)")
_ALL_SOUND = re.compile(r"\s*\([^()]*\)\s*")
_NOT_BREAK = re.compile(r"[^\n]")


def cues_to_words(cues: Iterable[Cue]) -> list[Word]:
    """The words of cues, in order of time. See `captions_to_words`."""
    # Karaoke and shadows in ASS, and segments of HLS, repeat whole cues.
    unique = list(dict.fromkeys(cues))
    check_cues(len(unique))
    longest = max((sum(map(len, cue.lines)) for cue in unique), default=0)
    if longest > MAX_LINE:
        raise BadInput(f"a cue of {longest} characters; a cue of a transcript has at most {MAX_LINE}")
    captions = list(map(read_markup, unique))
    for caption in captions:
        if ":" in caption.text and (time := EXACT_TIME.search(caption.text)):
            raise BadInput(f"the time {time[0]} in its text: a tag or a time line is broken")
    return captions_to_words(captions)


def captions_to_words(captions: Iterable[Caption]) -> list[Word]:
    """The words of captions, in order of time.

    Drops what is not spoken, words that rolling captions repeat, and repetitions that highlight one word after the
    other; ends each caption where the next begins.
    """
    captions = [caption for caption in captions if caption.text.strip()]
    check_words(_count_words(captions), MAX_SHOWN_WORDS)
    reversed_cues = sum(caption.end < caption.start for caption in captions)
    if reversed_cues > max(1, MAX_REVERSED * len(captions)):
        raise BadInput(f"{reversed_cues} of its {len(captions)} cues end before they start")
    captions.sort(key=lambda caption: caption.start)
    captions = _without_unspoken(captions)
    if not any(caption.spans for caption in captions):
        captions = merge_highlighted(captions)
    captions = drop_repeated(captions)
    check_words(_count_words(captions))
    captions = end_where_next_begins(captions)
    return [word for caption in captions for word in caption_words(caption)]


def _count_words(captions: Sequence[Caption]) -> int:
    return sum(len(caption.text.split()) for caption in captions)


def _without_unspoken(captions: Sequence[Caption]) -> list[Caption]:
    texts = blank_speakers([_blank_sounds(caption.text) for caption in captions])
    texts = [_PUNCTUATION.sub(_blank, text) for text in texts]
    return [replace(caption, text=text) for caption, text in zip(captions, texts, strict=True) if text.strip()]


def _blank_sounds(text: str) -> str:
    """`text` with blanks for descriptions of sounds, such as [Music] or (applause) alone on a line, and for notes."""
    text = _LINE_OF_SOUND.sub(_blank, _SOUND.sub(_blank, text))
    return _blank_all(text) if _ALL_SOUND.fullmatch(text) else text


def _blank(match: re.Match[str]) -> str:
    return _blank_all(match[0])


def _blank_all(text: str) -> str:
    return _NOT_BREAK.sub(" ", text)
