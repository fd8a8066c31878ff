"""The joint sequences of a question: one with sound and one with subtitles for each answer (SPEC 10.8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reserve.batch.vocabulary import AUDIOSPAN, MASK, PAD, START
from reserve.data.tokenizer import Tokenizer
from reserve.tasks.tvqa.times import MAX_SEGMENTS

AUDIO_TOKENS = 18
"""AUDIOSPANs of a segment, six for each of its three subsegments."""
ANSWER = "answer: "


@dataclass(slots=True)
class AnswerSequences:
    """Token ids and segments of one kind, int64 [answers, L] each, padded with PAD of segment 0. The answers have
    segment 0, the segments of the clip 1 to 7."""

    ids: np.ndarray
    segments: np.ndarray


def option_ids(tokenizer: Tokenizer, localization: str, question: str, choices: Sequence[str]) -> list[list[int]]:
    """The ids of each answer's statement: the span as percentages, the question and the answer."""
    prefix = [*tokenizer.encode(localization), START]
    query = [*prefix, *tokenizer.encode_plain(question), *tokenizer.encode(ANSWER)]
    return [[*query, *tokenizer.encode_plain(choice)] for choice in choices]


def text_sequences(
    options: Sequence[Sequence[int]], subtitles: Sequence[Sequence[int]], length: int
) -> AnswerSequences:
    """Each option with its MASK, then the `subtitles` ids of each segment."""
    spoken = [token for tokens in subtitles for token in tokens]
    segments = [segment for segment, tokens in enumerate(subtitles, 1) for _ in tokens]
    return _sequences(options, spoken, segments, length)


def audio_sequences(options: Sequence[Sequence[int]], length: int) -> AnswerSequences:
    """Each option with its MASK, then the sound of all seven segments."""
    segments = [segment for segment in range(1, MAX_SEGMENTS + 1) for _ in range(AUDIO_TOKENS)]
    return _sequences(options, [AUDIOSPAN] * len(segments), segments, length)


def _sequences(
    options: Sequence[Sequence[int]], context: Sequence[int], context_segments: Sequence[int], length: int
) -> AnswerSequences:
    ids = np.full((len(options), length), PAD, np.int64)
    segments = np.zeros_like(ids)
    for row, option in enumerate(options):
        statement = [*option[: length - 1], MASK]
        taken = min(len(context), length - len(statement))
        ids[row, : len(statement)] = statement
        ids[row, len(statement) : len(statement) + taken] = context[:taken]
        segments[row, len(statement) : len(statement) + taken] = context_segments[:taken]
    return AnswerSequences(ids, segments)
