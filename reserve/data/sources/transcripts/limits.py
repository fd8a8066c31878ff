"""Bounds on transcripts: hostile files fail fast, and the captions of a day of speech stay far below."""

from __future__ import annotations

from reserve.errors import BadInput

MAX_LINE = 10_000
"""Characters of a line, a cue or a JSON text without word times. A line of captions has tens, a segment of 30 s
at most a thousand; times that are spread over more words would mean nothing."""
MAX_CUES = 500_000
"""Cues of a file. Captions that highlight each word of a day of speech have 430,000."""
MAX_LINES = 4 * MAX_CUES
"""Lines of a caption file: number, times, text and a blank line for each cue."""
MAX_WORDS = 1_000_000
"""Words of a transcript: a day at ten a second is 864,000."""
MAX_SHOWN_WORDS = 10 * MAX_WORDS
"""Words of all cues with those that they repeat: a line of ten words is shown ten times to highlight each."""
MAX_TAGS = 2_000_000
"""Tags of an XML file: two for each word of a day of speech, and as many for lines."""


def check_lines(text: str) -> list[str]:
    """The lines of `text`, none longer than MAX_LINE."""
    # Counted before splitting: a million empty lines are small in a file and large in a list.
    if text.count("\n") > MAX_LINES:
        raise BadInput(f"{text.count(chr(10))} lines; a transcript has at most {MAX_LINES}")
    lines = text.split("\n")
    if (longest := max(map(len, lines))) > MAX_LINE:
        raise BadInput(f"a line of {longest} characters; a line of a transcript has at most {MAX_LINE}")
    return lines


def check_cues(count: int) -> None:
    """Raises BadInput for more than MAX_CUES."""
    if count > MAX_CUES:
        raise BadInput(f"{count} cues; a transcript has at most {MAX_CUES}")


def check_words(count: int, limit: int = MAX_WORDS) -> None:
    """Raises BadInput for more than `limit`."""
    if count > limit:
        raise BadInput(f"{count} words; a transcript has at most {limit}")
