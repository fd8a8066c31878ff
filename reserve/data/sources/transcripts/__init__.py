"""Reads transcripts, from files and embedded text tracks, as timed words."""

from reserve.data.sources.transcripts.embedded import load_embedded_transcripts
from reserve.data.sources.transcripts.loading import (
    TRANSCRIPT_SUFFIXES,
    UNREAD_SUFFIXES,
    is_word_timed,
    load_transcript,
    read_transcript,
)

__all__ = [
    "TRANSCRIPT_SUFFIXES",
    "UNREAD_SUFFIXES",
    "is_word_timed",
    "load_embedded_transcripts",
    "load_transcript",
    "read_transcript",
]
