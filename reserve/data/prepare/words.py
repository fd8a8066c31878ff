"""The words of a video: which of its transcripts is used, and why not the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from reserve.data.decode.protocol import Media
from reserve.data.prepare.segments import centre
from reserve.data.sources.discover import VideoSource
from reserve.data.sources.labels import Labels
from reserve.data.sources.tracks import audio_labels, rank_text_tracks, text_labels, track_name
from reserve.data.sources.transcripts import load_embedded_transcript, read_transcript
from reserve.data.types import Choice, PassedOver, Word
from reserve.errors import BadInput

_MIN_SHARE_INSIDE = 0.5
# A video may fade out a little before its last words end.
_MAX_SHARE_UNMENTIONED = 0.02
MIN_WORDS_PER_MINUTE = 30
"""Of a transcript that is labelled forced, signs or the like. Speech has 100 to 160; signs have a few, and labels are
often wrong."""


@dataclass(frozen=True, slots=True)
class _Transcript:
    """A transcript that could be used: its name, what is known about it, and how to read its words and warnings."""

    name: str
    labels: Labels
    load: Callable[[], tuple[list[Word], list[str]]]


def find_words(
    source: VideoSource, media: Media, audio_track: int, duration: float, languages: Sequence[str]
) -> tuple[list[Word], Choice, list[str]]:
    """Words of the first usable transcript of a video of `duration` seconds in the order of their centres, with
    warnings: the reasons against the transcripts before it, and another language than that of the sound.

    Raises BadInput with all reasons if there is none.
    """
    refused: list[PassedOver] = []
    transcripts = _in_order(source, media, languages)
    for transcript in transcripts:
        try:
            words, doubts = transcript.load()
            words, late = _words_inside(words, duration, transcript.labels)
        except BadInput as error:
            refused.append(PassedOver(transcript.name, str(error)))
            continue
        others = [PassedOver(other.name, _not_tried(other.labels)) for other in transcripts]
        audio = media.info.audio[audio_track]
        choice = Choice(
            transcript.name, track_name("audio", audio_track, audio), (*refused, *others, *source.passed_over)
        )
        warnings = [f"{other.name}: {other.reason}" for other in refused]
        warnings += [f"{transcript.name}: {doubt}" for doubt in doubts]
        if late:
            warnings.append(f"{transcript.name}: {late}, and are left out")
        spoken, written = audio_labels(audio).language, transcript.labels.language
        if spoken and written and spoken != written:
            warnings.append(f"{transcript.name} is in language {written}, the sound in {spoken}")
        return words, choice, warnings
    raise BadInput(none_usable([*refused, *source.passed_over], media))


def _in_order(source: VideoSource, media: Media, languages: Sequence[str]) -> Iterator[_Transcript]:
    for candidate in source.candidates:
        yield _Transcript(candidate.path.name, candidate.labels, partial(read_transcript, candidate.path))
    for track in rank_text_tracks(media.info.text, languages):
        header = media.info.text[track]
        yield _Transcript(track_name("text", track, header), text_labels(header), partial(_embedded, media, track))


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


def _words_inside(words: Sequence[Word], duration: float, labels: Labels) -> tuple[list[Word], str]:
    """The words spoken before the video ends, and what to say if many come after. Raises BadInput if most do, as in a
    transcript of something else, or if a transcript labelled as partial is."""
    inside = [word for word in words if centre(word) < duration]
    outside = len(words) - len(inside)
    late = f"{outside} of its {len(words)} words come after the end of the video at {duration:.1f} s"
    if len(inside) < _MIN_SHARE_INSIDE * len(words):
        raise BadInput(late)
    if labels.is_partial and len(inside) < MIN_WORDS_PER_MINUTE * duration / 60:
        raise BadInput(
            f"forced or other partial text: {len(inside)} words in {duration:.0f} s are not all that is said"
        )
    return sorted(inside, key=centre), late if outside > _MAX_SHARE_UNMENTIONED * len(words) else ""
