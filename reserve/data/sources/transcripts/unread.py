"""Formats of subtitles that are not read."""

from __future__ import annotations

_PICTURES = "its captions are pictures"
UNREAD_FORMATS: dict[str, str] = {
    ".idx": _PICTURES,
    ".sup": _PICTURES,
    ".sub": "its captions are pictures, or count frames",
    ".scc": "it has the bytes of broadcast captions rather than text",
    ".mcc": "it has the bytes of broadcast captions rather than text",
    ".stl": "a broadcast format that is not read",
    ".cap": "a broadcast format that is not read",
    ".smi": "SAMI is not read",
    ".sami": "SAMI is not read",
    ".rt": "RealText is not read",
    ".itt": "iTunes timed text is not read; rename it to .ttml if its times are those of the video",
    ".usf": "Universal Subtitle Format is not read",
    ".tsv": "tables are not read; Whisper writes the same as .json and .srt",
    ".txt": "text without times",
}
"""Endings that are not read, each with the reason."""
