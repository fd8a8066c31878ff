"""WebVTT, plain and with the word times of YouTube's automatic captions."""

from __future__ import annotations

from reserve.data.sources.transcripts.cues import cues_to_words
from reserve.data.sources.transcripts.timed_blocks import parse_blocks
from reserve.data.types import Word


def parse_webvtt(text: str) -> list[Word]:
    """The words of a WebVTT text, timed by `<00:00:01.234>` tags where it has them."""
    return cues_to_words(parse_blocks(text, "WebVTT"))
