"""SubRip (.srt)."""

from __future__ import annotations

from reserve.data.sources.transcripts.cues import plain_cues_to_words
from reserve.data.types import Cue, Word
from reserve.errors import BadInput


def parse_srt(text: str) -> list[Word]:
    """The words of an SRT text, spread over their cues."""
    import pysubs2

    try:
        events = list(pysubs2.SSAFile.from_string(text, format_="srt"))
    except (pysubs2.Pysubs2Error, ValueError, OverflowError) as error:
        raise BadInput(f"not SRT: {error}") from error
    if not events:
        raise BadInput("not SRT: no cue with a time line such as 00:00:01,000 --> 00:00:02,500")
    return plain_cues_to_words(
        Cue(event.start / 1000, event.end / 1000, tuple(event.plaintext.split("\n"))) for event in events
    )
