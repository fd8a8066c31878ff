"""A transcript file of any supported format to words."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from reserve.data.sources.encodings import DAMAGED
from reserve.data.sources.text_files import parse_json as parse_json_text
from reserve.data.sources.text_files import parse_json_values, read_text
from reserve.data.sources.transcripts.align_format import parse_align
from reserve.data.sources.transcripts.ass_format import parse_ass
from reserve.data.sources.transcripts.json_format import parse_json
from reserve.data.sources.transcripts.lrc_format import parse_lrc
from reserve.data.sources.transcripts.markup import WORD_TIME
from reserve.data.sources.transcripts.plausible import plausible_words
from reserve.data.sources.transcripts.srt_format import parse_sbv, parse_srt
from reserve.data.sources.transcripts.ttml_format import parse_ttml
from reserve.data.sources.transcripts.webvtt_format import parse_webvtt
from reserve.data.sources.transcripts.youtube_formats import parse_json3, parse_srv
from reserve.data.types import Word
from reserve.errors import BadInput
from reserve.fs import check_regular_file

_PARSERS: dict[str, Callable[[str], list[Word]]] = {
    ".json": lambda text: parse_json(parse_json_values(text)),
    ".json3": lambda text: parse_json3(parse_json_text(text)),
    ".srv3": parse_srv,
    ".align": parse_align,
    ".vtt": parse_webvtt,
    ".srt": parse_srt,
    ".ttml": parse_ttml,
    ".dfxp": parse_ttml,
    ".srv2": parse_srv,
    ".srv1": parse_srv,
    ".ass": parse_ass,
    ".ssa": parse_ass,
    ".sbv": parse_sbv,
    ".lrc": parse_lrc,
}
TRANSCRIPT_SUFFIXES = tuple(_PARSERS)
"""Endings of the supported formats, the most exact first."""

_WORD_TIMES = {
    ".vtt": WORD_TIME,
    ".lrc": WORD_TIME,
    ".srt": WORD_TIME,
    ".json3": re.compile('"tOffsetMs"'),
    ".srv3": re.compile(r"<s\s[^<>]*\bt="),
    ".ttml": re.compile(r"<(?:\w+:)?span\s[^<>]*\bbegin="),
    ".dfxp": re.compile(r"<(?:\w+:)?span\s[^<>]*\bbegin="),
    ".ass": re.compile(r"\\[kK][fo]?\d"),
    ".ssa": re.compile(r"\\[kK][fo]?\d"),
}


def load_transcript(path: str | Path) -> list[Word]:
    """Words of a transcript, times in seconds, in order of time; see `read_transcript`."""
    return read_transcript(path)[0]


def read_transcript(path: str | Path) -> tuple[list[Word], list[str]]:
    """Words of a transcript, times in seconds, in order of time, and warnings about the file.

    The ending decides the format (TRANSCRIPT_SUFFIXES). A cue without word times divides its time among its words by
    their lengths. A word with damaged characters is dropped. Raises BadInput if the file cannot be read, if its words
    could be wrong (its encoding or a time line is in doubt), or if they are not plausible (plausible.py).
    """
    path = Path(path)
    parser = _PARSERS.get(path.suffix.lower())
    if parser is None:
        raise BadInput(f"unknown transcript format {path.suffix!r}; known are {', '.join(_PARSERS)}")
    decoded = read_text(path)
    # Byte order marks inside come from joined files.
    text = decoded.text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufeff", "")
    words = plausible_words(parser(text))
    return [word for word in words if DAMAGED not in word.text], decoded.warnings


def is_word_timed(path: Path) -> bool:
    """Whether a transcript has times of words rather than of lines, judged by its ending and first 64 KiB."""
    suffix = path.suffix.lower()
    if suffix in (".json", ".align"):
        return True
    if suffix not in _WORD_TIMES:
        return False
    try:
        check_regular_file(path)
        with path.open("rb") as file:
            head = file.read(65536)
    except (BadInput, OSError):
        return False
    return _WORD_TIMES[suffix].search(head.decode("utf-8", errors="replace")) is not None
