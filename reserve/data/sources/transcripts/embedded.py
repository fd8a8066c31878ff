"""Words from the text tracks inside a container: captions muxed with the video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from reserve.data.decode.protocol import Media, TextTrack
from reserve.data.sources.labels import Labels, language_rank, parse_language, title_labels
from reserve.data.sources.transcripts.cues import plain_cues_to_words
from reserve.data.sources.transcripts.plausible import plausible_words
from reserve.data.types import Word


def rank_text_tracks(tracks: Sequence[TextTrack], languages: Sequence[str]) -> list[int]:
    """Numbers of the text tracks, best first: all that is spoken before forced text, signs or commentary; `languages`
    in their order, a track without one counting as the first, before others; then the default track; then in order."""

    def rank(number: int) -> tuple[Any, ...]:
        labels = track_labels(tracks[number])
        return (
            labels.is_partial,
            language_rank(labels, languages),
            labels.is_automatic,
            not tracks[number].is_default,
            labels.is_hearing_impaired,
            number,
        )

    return sorted(range(len(tracks)), key=rank)


def track_labels(track: TextTrack) -> Labels:
    """What a track's header and title say about it."""
    language, title = parse_language(track.language), title_labels(track.title)
    return replace(
        title,
        language=language.language,
        tag=language.tag,
        is_partial=title.is_partial or track.is_forced or track.is_comment,
        is_hearing_impaired=title.is_hearing_impaired or track.is_hearing_impaired,
    )


def track_name(number: int, track: TextTrack) -> str:
    """A track as reports name it: "text track 1 (ger, Signs & Songs)"."""
    language = "" if track.language == "und" else track.language
    known = ", ".join(filter(None, [language, " ".join(track.title.split())]))
    return f"text track {number}" + (f" ({known})" if known else "")


def load_embedded_transcript(media: Media, track: int) -> list[Word]:
    """Words of text track `track`. Raises BadInput if they are not plausible."""
    return plausible_words(plain_cues_to_words(media.cues(track)))
