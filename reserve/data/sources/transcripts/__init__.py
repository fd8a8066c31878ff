"""Reads transcripts, from files and embedded text tracks, as timed words."""

from reserve.data.sources.transcripts.embedded import load_embedded_transcript
from reserve.data.sources.transcripts.loading import (
    TRANSCRIPT_SUFFIXES,
    is_word_timed,
    load_transcript,
    read_transcript,
)
from reserve.data.sources.transcripts.recognised import is_recognised
from reserve.data.sources.transcripts.unread import UNREAD_FORMATS

__all__ = [
    "TRANSCRIPT_SUFFIXES",
    "UNREAD_FORMATS",
    "is_recognised",
    "is_word_timed",
    "load_embedded_transcript",
    "load_transcript",
    "read_transcript",
]
