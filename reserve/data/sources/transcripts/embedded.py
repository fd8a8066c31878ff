"""Words from the text tracks inside a container: captions muxed with the video."""

from __future__ import annotations

from reserve.data.decode.protocol import Media
from reserve.data.sources.transcripts.cues import plain_cues_to_words
from reserve.data.sources.transcripts.plausible import plausible_words
from reserve.data.types import Word
from reserve.errors import BadInput


def load_embedded_transcripts(media: Media) -> tuple[list[Word] | None, list[str]]:
    """Words of the first plausible text track of `media`, or None, and the reasons against the tracks before it."""
    reasons: list[str] = []
    for track in range(len(media.info.text)):
        try:
            return plausible_words(plain_cues_to_words(media.cues(track))), reasons
        except BadInput as error:
            reasons.append(f"text track {track}: {error}")
    return None, reasons
