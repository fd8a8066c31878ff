"""WebVTT, plain and with the word times of YouTube's automatic captions."""

from __future__ import annotations

import re

from reserve.data.sources.transcripts.cues import (
    drop_repeated_lines,
    plain_cues_to_words,
    spoken_text,
    spread_words,
)
from reserve.data.types import Cue, Word
from reserve.errors import BadInput

WORD_TIME = re.compile(r"<((?:\d+:)?\d\d:\d\d\.\d{3})>")


def parse_webvtt(text: str) -> list[Word]:
    """The words of a WebVTT text: timed by `<00:00:01.234>` tags, otherwise spread over their cue."""
    import webvtt
    from webvtt.errors import MalformedCaptionError, MalformedFileError

    try:
        captions = webvtt.from_string(text).captions
    except (MalformedFileError, MalformedCaptionError, ValueError, IndexError) as error:
        raise BadInput("not WebVTT: it does not begin with a line WEBVTT, or has no well-formed cues") from error
    cues = [
        Cue(parse_timestamp(caption.start), parse_timestamp(caption.end), tuple(caption.lines)) for caption in captions
    ]
    if not any(WORD_TIME.search(line) for cue in cues for line in cue.lines):
        return plain_cues_to_words(cues)
    words = []
    for cue in drop_repeated_lines(cues, is_new=WORD_TIME):
        words += _timed_words(cue)
    return words


def parse_timestamp(timestamp: str) -> float:
    """Seconds of `hh:mm:ss.mmm` or `mm:ss.mmm`."""
    seconds = 0.0
    for part in timestamp.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


def _timed_words(cue: Cue) -> list[Word]:
    """The words of a cue with time tags: each piece lasts from its tag to the next one or the end of the cue."""
    text, *rest = WORD_TIME.split(" ".join(cue.lines))
    pieces = [(cue.start, text)]
    pieces += [(parse_timestamp(time), text) for time, text in zip(rest[::2], rest[1::2], strict=True)]
    ends = [start for start, _ in pieces[1:]] + [cue.end]
    return [
        word
        for (start, text), end in zip(pieces, ends, strict=True)
        for word in spread_words(spoken_text(text), start, end)
    ]
