"""Words from the text tracks inside a container: captions muxed with the video."""

from __future__ import annotations

from reserve.data.decode.protocol import Media
from reserve.data.sources.transcripts.cues import cues_to_words
from reserve.data.sources.transcripts.plausible import plausible_words
from reserve.data.types import Word


def load_embedded_transcript(media: Media, track: int) -> list[Word]:
    """Words of text track `track`. Raises BadInput if they are not plausible."""
    return plausible_words(cues_to_words(media.cues(track)))
