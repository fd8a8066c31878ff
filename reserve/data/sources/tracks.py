"""Which of a container's audio and text tracks to take, and what reports call them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from reserve.data.decode.protocol import AudioTrack, LabelledTrack, TextTrack
from reserve.data.sources.labels import Labels, language_rank, track_labels


def choose_audio_track(tracks: Sequence[AudioTrack], languages: Sequence[str]) -> int:
    """Number of the audio track to hear: not a commentary or a description of the pictures; one of `languages` in their
    order, a track without a language counting as the first; the default track; the first."""

    def rank(number: int) -> tuple[Any, ...]:
        track, labels = tracks[number], audio_labels(tracks[number])
        return not track.decodable, labels.is_partial, language_rank(labels, languages), not track.is_default, number

    return min(range(len(tracks)), key=rank, default=0)


def rank_text_tracks(tracks: Sequence[TextTrack], languages: Sequence[str]) -> list[int]:
    """Numbers of the text tracks, best first: all that is spoken before forced text, signs or commentary; `languages`
    in their order, a track without one counting as the first, before others; then the default track; then in order."""

    def rank(number: int) -> tuple[Any, ...]:
        track, labels = tracks[number], text_labels(tracks[number])
        return (
            labels.is_partial,
            language_rank(labels, languages),
            labels.is_automatic,
            not track.is_default,
            labels.is_hearing_impaired,
            number,
        )

    return sorted(range(len(tracks)), key=rank)


def audio_labels(track: AudioTrack) -> Labels:
    """What an audio track's header and title say about it; `is_partial` for commentaries and descriptions."""
    labels = track_labels(track.language, track.title)
    return replace(labels, is_partial=labels.is_partial or track.is_comment or track.is_description)


def text_labels(track: TextTrack) -> Labels:
    """What a text track's header and title say about it."""
    labels = track_labels(track.language, track.title)
    return replace(
        labels,
        is_partial=labels.is_partial or track.is_forced or track.is_comment,
        is_hearing_impaired=labels.is_hearing_impaired or track.is_hearing_impaired,
    )


def track_name(kind: str, number: int, track: LabelledTrack) -> str:
    """A track as reports name it: "text track 1 (ger, Signs & Songs)"."""
    language = "" if track.language == "und" else track.language
    known = ", ".join(filter(None, [language, " ".join(track.title.split())]))
    return f"{kind} track {number}" + (f" ({known})" if known else "")
