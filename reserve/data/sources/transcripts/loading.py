"""A transcript file of any supported format to words."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from reserve.data.sources.text_files import read_json_values, read_text
from reserve.data.sources.transcripts.align_format import parse_align
from reserve.data.sources.transcripts.json_format import parse_json
from reserve.data.sources.transcripts.plausible import plausible_words
from reserve.data.sources.transcripts.srt_format import parse_srt
from reserve.data.sources.transcripts.webvtt_format import WORD_TIME, parse_webvtt
from reserve.data.types import Word
from reserve.errors import BadInput
from reserve.fs import check_regular_file

_LOADERS: dict[str, Callable[[Path], list[Word]]] = {
    ".json": lambda path: parse_json(read_json_values(path)),
    ".align": lambda path: parse_align(read_text(path)),
    ".vtt": lambda path: parse_webvtt(_normalised(read_text(path))),
    ".srt": lambda path: parse_srt(_normalised(read_text(path))),
}
TRANSCRIPT_SUFFIXES = tuple(_LOADERS)
"""Endings of the supported formats."""


def load_transcript(path: str | Path) -> list[Word]:
    """Words of a transcript, times in seconds, in order of time.

    The ending decides the format: `.vtt` WebVTT (plain, or YouTube's with word times), `.srt`, `.json` (Whisper, Vosk),
    `.align` (GRID). A cue without word times divides its time among its words by their lengths. Raises BadInput if the
    file cannot be read or its words are not plausible (plausible.py).
    """
    path = Path(path)
    loader = _LOADERS.get(path.suffix.lower())
    if loader is None:
        raise BadInput(f"unknown transcript format {path.suffix!r}; known are {', '.join(_LOADERS)}")
    return plausible_words(loader(path))


def is_word_timed(path: Path) -> bool:
    """Whether a transcript has times of words rather than of lines, judged by its ending and first 64 KiB."""
    if path.suffix.lower() in (".json", ".align"):
        return True
    if path.suffix.lower() != ".vtt":
        return False
    try:
        check_regular_file(path)
        with path.open("rb") as file:
            head = file.read(65536)
    except (BadInput, OSError):
        return False
    return WORD_TIME.search(head.decode("utf-8", errors="replace")) is not None


def _normalised(text: str) -> str:
    """`text` with line ends as the caption parsers need them."""
    return re.sub(r"\r\n?", "\n", text)
