"""The language of a video's words: by the label of their transcript, or else by the words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import PurePath
from typing import Any

from reserve.data.sources.labels import parse_labels, track_labels, wanted_language
from reserve.data.sources.languages import folded, standard_code

MIN_LETTERS = 100
"""Letters below which the language of a text is not guessed: some twenty words."""
MIN_CONFIDENCE = 0.9
"""Probability below which a guess does not count."""
_MOST_LETTERS = 10_000
_TRACK = re.compile(r"text track \d+(?: \((.*)\))?", re.DOTALL)


def wanted_codes(languages: Sequence[str]) -> frozenset[str]:
    """The codes of filter.languages. Raises ValueError for the first that is no language."""
    return frozenset(wanted_language(text, "filter.languages").language for text in languages)


def other_language(
    video_id: str, transcript: str, texts: Sequence[str], languages: Sequence[str]
) -> tuple[str, str] | None:
    """The language of a video if it is surely none of `languages`, as its code and how it is known.

    Args:
        transcript: the name of the transcript or text track used, as Choice has it.
        texts: the words of each segment.
    """
    wanted = wanted_codes(languages)
    if labelled := transcript_language(video_id, transcript):
        return (labelled, f"by the label of {transcript}") if labelled not in wanted else None
    if (guessed := guess_language(texts)) and guessed not in wanted:
        return guessed, "by its words"
    return None


def transcript_language(video_id: str, transcript: str) -> str:
    """The language that the name of a transcript gives, such as talk.de.vtt of talk.mp4 or "text track 0 (ger)"; "" if
    none."""
    if (track := _TRACK.fullmatch(transcript)) is not None:
        known = track[1] or ""
        code, _, title = known.partition(", ")
        return track_labels(code, title).language or track_labels("", known).language
    media = PurePath(video_id).name
    parts = PurePath(transcript).stem.split(".")
    # A companion's name begins with that of its video, with or without the ending.
    for prefix in (media, PurePath(media).stem):
        size = prefix.count(".") + 1
        if folded(".".join(parts[:size])) == folded(prefix):
            labels = parse_labels([part for part in parts[size:] if part])
            return labels.language if labels else ""
    return ""


def guess_language(texts: Sequence[str]) -> str:
    """The language that words are in, by py3langid; "" if they have fewer than MIN_LETTERS letters or it is unsure."""
    text, letters = [], 0
    for part in texts:
        text.append(part)
        letters += sum(map(str.isalpha, part))
        if letters >= _MOST_LETTERS:
            break
    if letters < MIN_LETTERS:
        return ""
    code, confidence = _identifier().classify(" ".join(text).lower()[: 2 * _MOST_LETTERS])
    return (standard_code(code) or "") if confidence >= MIN_CONFIDENCE else ""


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
