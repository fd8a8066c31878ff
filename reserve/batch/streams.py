"""Token streams before packing: padded rows of ids with pointers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reserve.batch.vocabulary import LTOVPOOL


@dataclass(slots=True)
class TokenStream:
    """Token ids with their pointers (SPEC 7), int32 arrays of one shape [sequences, length].

    `audio_ptr`: the subsegment of a token, or -1; `text_ptr`: the text span that a MASK predicts, or -1.
    """

    ids: np.ndarray
    audio_ptr: np.ndarray
    text_ptr: np.ndarray


@dataclass
class JointStream:
    """Sequences of one kind before packing.

    `ids`, `audio_ptr`, `segment` int [n, L]: tokens, the subsegment of an AUDIOSPAN within its example, and the segment
    coordinate; `example` int [n]: the example of each sequence in the batch. If the stream has images, `images` int
    [n, segments] are indices of the batch's frames, and `source` int [n, segments] is the video of each segment: tokens
    attend to tokens of the same video only. `first_segment` is the segment coordinate of the first image, for sequences
    whose first segment has none. Without `with_audio`, an AUDIOSPAN is an ordinary token.
    """

    name: str
    ids: np.ndarray
    audio_ptr: np.ndarray
    segment: np.ndarray
    example: np.ndarray
    images: np.ndarray | None = None
    source: np.ndarray | None = None
    with_audio: bool = True
    first_segment: int = 0

    def __post_init__(self) -> None:
        if self.first_segment and self.source is not None:
            raise ValueError(
                f"a stream with sources must have images from segment 0 on; got first_segment {self.first_segment}"
            )


def pool_count(ids: np.ndarray) -> np.ndarray:
    """Running count of LTOVPOOL along the last axis, inclusive: the segment coordinate in audio_text_matching."""
    return np.cumsum(ids == LTOVPOOL, axis=-1)
