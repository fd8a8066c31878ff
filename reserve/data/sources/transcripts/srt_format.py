"""SubRip (.srt) and SBV (.sbv)."""

from __future__ import annotations

from reserve.data.sources.transcripts.cues import cues_to_words
from reserve.data.sources.transcripts.timed_blocks import parse_blocks
from reserve.data.types import Cue, Word


def parse_srt(text: str) -> list[Word]:
    """The words of an SRT text."""
    return cues_to_words(_with_breaks(cue, "\\N") for cue in parse_blocks(text.replace("\\h", " "), "SRT"))


def parse_sbv(text: str) -> list[Word]:
    """The words of an SBV text: time lines `0:00:00.599,0:00:04.160`, and [br] for a line break."""
    return cues_to_words(_with_breaks(cue, "[br]") for cue in parse_blocks(text, "SBV", sbv=True))


def _with_breaks(cue: Cue, mark: str) -> Cue:
    """`cue` with `mark`, which stands for a line break, as one. Converters to SRT leave that of ASS."""
    return Cue(cue.start, cue.end, tuple(part for line in cue.lines for part in line.split(mark)))
