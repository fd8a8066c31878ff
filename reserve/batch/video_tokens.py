"""The language tokens of a video at inference: one sequence over its segments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from reserve.batch.vocabulary import AUDIOSPAN, PAD

MAX_SEGMENTS = 8
"""Most segments of a video in one sequence: the size of a segment group in pretraining."""
SUBSEGMENTS = 3
"""Audio subsegments of a segment."""
LENGTH = 160
"""Language tokens of a sequence."""
NO_SUBSEGMENT = -1
"""What padding has for a subsegment."""


class VideoTokens(NamedTuple):
    """Token `ids` and the subsegment of each, both int32 [length]; padding is PAD with subsegment -1."""

    ids: np.ndarray
    subsegments: np.ndarray


def video_tokens(
    texts: Sequence[Sequence[int] | None], *, length: int = LENGTH, audio_tokens: int = 6, most: int = MAX_SEGMENTS
) -> VideoTokens:
    """Lays out the tokens of a video's segments, in order.

    `texts` has the token ids of each segment's text, or None for a segment that is heard: that one gets
    3 * `audio_tokens` AUDIOSPAN, `audio_tokens` for each of its subsegments. A text has its segment's first subsegment.
    What exceeds `length` is cut from the end, a MASK included; the rest is padded. Raises ValueError for no segment or
    more than `most`.
    """
    if not 1 <= len(texts) <= most:
        raise ValueError(f"a video is encoded as 1 to {most} segments; got {len(texts)}")
    ids: list[int] = []
    subsegments: list[int] = []
    for segment, text in enumerate(texts):
        first = SUBSEGMENTS * segment
        if text is None:
            ids += [AUDIOSPAN] * (SUBSEGMENTS * audio_tokens)
            subsegments += [first + k // audio_tokens for k in range(SUBSEGMENTS * audio_tokens)]
        else:
            ids += map(int, text)
            subsegments += [first] * len(text)
    return VideoTokens(_padded(ids, length, PAD), _padded(subsegments, length, NO_SUBSEGMENT))


def _padded(values: list[int], length: int, filling: int) -> np.ndarray:
    return np.array((values + [filling] * length)[:length], dtype=np.int32)
