"""The words of a video: which of its transcripts is used, and why not the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from reserve.data.decode.protocol import Media
from reserve.data.prepare.segments import centre
from reserve.data.sources.discover import VideoSource
from reserve.data.sources.labels import Labels, language_rank
from reserve.data.sources.tracks import audio_labels, rank_text_tracks, text_labels, track_name
from reserve.data.sources.transcripts import load_embedded_transcript, read_transcript
from reserve.data.types import Choice, PassedOver, Word
from reserve.errors import BadInput

_MIN_SHARE_INSIDE = 0.5
# A video may fade out a little before its last words end.
_MAX_SHARE_UNMENTIONED = 0.02
MIN_WORDS_PER_MINUTE = 30
"""Of a transcript of all that is said. Speech has 100 to 160; forced text and signs have a few, and their labels are
often missing or wrong."""
# A transcript with fewer words a minute gives way to another that has more than this many times its words.
_MANY_TIMES = 3


@dataclass(frozen=True, slots=True)
class _Transcript:
    """A transcript that could be used: its name, what is known about it, and how to read its words and warnings."""

    name: str
    labels: Labels
    load: Callable[[], tuple[list[Word], list[str]]]


@dataclass(frozen=True, slots=True)
class _Reading:
    """The words of a transcript that lie inside the video, and warnings about it."""

    transcript: _Transcript
    words: list[Word]
    warnings: list[str]


def find_words(
    source: VideoSource, media: Media, audio_track: int, duration: float, languages: Sequence[str]
) -> tuple[list[Word], Choice, list[str]]:
    """Words of the first usable transcript of a video of `duration` seconds in the order of their centres, with
    warnings: the reasons against the transcripts before it, and a language that is not wanted or not that of the sound.
    One with few words gives way to one of the same language that has many.

    Raises BadInput with all reasons if there is none.
    """
    transcripts = _in_order(source, media, languages)
    used, refused = _read_first(transcripts, duration)
    if used is None:
        raise BadInput(none_usable([*refused, *source.passed_over], media))
    name, labels = used.transcript.name, used.transcript.labels
    known = {name, *(other.name for other in refused)}
    others = [PassedOver(other.name, _not_tried(other.labels)) for other in transcripts if other.name not in known]
    audio = media.info.audio[audio_track]
    choice = Choice(name, track_name("audio", audio_track, audio), (*refused, *others, *source.passed_over))
    better = {other.name for other in transcripts[: transcripts.index(used.transcript)]}
    warnings = [f"{other.name}: {other.reason}" for other in refused if other.name in better]
    warnings += [f"{name}: {warning}" for warning in used.warnings]
    spoken, written = audio_labels(audio).language, labels.language
    if spoken and written and spoken != written:
        warnings.append(f"{name} is in language {written}, the sound in {spoken}")
    if language_rank(labels, languages)[0] == len(languages):
        warnings.append(f"{name} is in language {written}, which is not in data.languages")
    return used.words, choice, warnings


def _read_first(transcripts: Sequence[_Transcript], duration: float) -> tuple[_Reading | None, list[PassedOver]]:
    """The first usable of `transcripts`, and the others that were read, with the reasons against them."""
    used, refused = None, []
    for transcript in transcripts:
        if used and used.transcript.labels.language != transcript.labels.language:
            continue
        try:
            reading = _read(transcript, duration)
        except BadInput as error:
            refused.append(PassedOver(transcript.name, str(error)))
            continue
        is_full = len(reading.words) >= MIN_WORDS_PER_MINUTE * duration / 60
        if used is None:
            used = reading
        else:
            worse = reading
            if is_full and len(reading.words) > _MANY_TIMES * len(used.words):
                used, worse = reading, used
            reason = f"{len(worse.words)} words in {duration:.0f} s, where {used.transcript.name} has {len(used.words)}"
            refused.append(PassedOver(worse.transcript.name, reason))
        if is_full:
            break
    return used, refused


def _in_order(source: VideoSource, media: Media, languages: Sequence[str]) -> list[_Transcript]:
    """All transcripts, best first: files before tracks, but not text in another language, forced or automatic text
    before what is better in that respect."""
    files = [
        _Transcript(candidate.path.name, candidate.labels, partial(read_transcript, candidate.path))
        for candidate in source.candidates
    ]
    headers = [(track, media.info.text[track]) for track in rank_text_tracks(media.info.text, languages)]
    tracks = [
        _Transcript(track_name("text", track, header), text_labels(header), partial(_embedded, media, track))
        for track, header in headers
    ]

    def rank(transcript: _Transcript) -> tuple[bool, int, bool]:
        labels = transcript.labels
        return labels.is_partial, language_rank(labels, languages)[0], labels.is_automatic

    return sorted([*files, *tracks], key=rank)


def _embedded(media: Media, track: int) -> tuple[list[Word], list[str]]:
    return load_embedded_transcript(media, track), []


def _not_tried(labels: Labels) -> str:
    return f"not tried: {known}" if (known := labels.describe()) else "not tried"


def none_usable(refused: Sequence[PassedOver], media: Media) -> str:
    """Why a video has no words."""
    reason = "no transcript beside it and no text track in it"
    if refused:
        reason = f"no usable transcript ({'; '.join(f'{other.name}: {other.reason}' for other in refused)})"
    if media.has_closed_captions():
        reason += (
            "; its pictures carry closed captions (CEA-608 or 708), which are not read: extract them into an .srt file "
            "beside it"
        )
    return reason


def _read(transcript: _Transcript, duration: float) -> _Reading:
    """The words spoken before the video ends. Raises BadInput if most come after, as in a transcript of something else,
    or if a transcript labelled as partial is."""
    words, warnings = transcript.load()
    inside = [word for word in words if centre(word) < duration]
    outside = len(words) - len(inside)
    late = f"{outside} of its {len(words)} words come after the end of the video at {duration:.1f} s"
    if len(inside) < _MIN_SHARE_INSIDE * len(words):
        raise BadInput(late)
    if transcript.labels.is_partial and len(inside) < MIN_WORDS_PER_MINUTE * duration / 60:
        raise BadInput(
            f"forced or other partial text: {len(inside)} words in {duration:.0f} s are not all that is said"
        )
    if outside > _MAX_SHARE_UNMENTIONED * len(words):
        warnings = [*warnings, f"{late}, and are left out"]
    return _Reading(transcript, sorted(inside, key=centre), warnings)
