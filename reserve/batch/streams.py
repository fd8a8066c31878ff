"""Token streams before packing: what the joint encoder reads, as padded rows of ids with pointers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reserve.batch.vocabulary import LTOVPOOL


@dataclass(slots=True)
class TokenStream:
    """Token ids with their pointers (SPEC 7), int32 arrays of one shape [sequences, length].

    `audio_ptr`: the subsegment a token belongs to, or -1; `text_ptr`: the text span a MASK must predict, or -1.
    """

    ids: np.ndarray
    audio_ptr: np.ndarray
    text_ptr: np.ndarray


@dataclass
class JointStream:
    """Sequences of one kind before packing.

    `ids`, `audio_ptr`, `segment` int [n, L]: tokens, the subsegment of an AUDIOSPAN within its example, and the segment
    coordinate; `example` int [n]. Where the stream has images, `images` int [n, segments] are rows of the batch's
    frames, and `source` int [n, segments] the video each segment comes from: tokens attend within it.
    """

    name: str
    ids: np.ndarray
    audio_ptr: np.ndarray
    segment: np.ndarray
    example: np.ndarray
    images: np.ndarray | None = None
    source: np.ndarray | None = None
    with_audio: bool = True


def pool_count(ids: np.ndarray) -> np.ndarray:
    """Inclusive running count of LTOVPOOL along the last axis: the segment coordinate of audio_text_matching."""
    return np.cumsum(ids == LTOVPOOL, axis=-1)
