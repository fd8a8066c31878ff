"""The typed things that flow through the data path: Word, Segments, ExampleText, MetadataPrefixes, MaskedText.

video + transcript -> Segments -> (ExampleText, frames, log-mels) -> MaskedText -> PretrainBatch
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word with its start and end, in seconds on the time axis of its context."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class VideoMetadata:
    """What the publisher wrote about a video."""

    title: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()


@dataclass(slots=True)
class Segments:
    """The n segments cut from one video (SPEC 1), as stored on disk.

    Shapes: `start` float64 [n], seconds into the video; `playback_speed` int32 [n], in {1, 2, 3};
    `frames` n JPEG files (the frame at the middle of each segment, shorter side at most 288 and longer at most
    512 pixels); `log_mel` float16 [n, 188, 64] (SPEC 2); `words` one list a segment, times in seconds from the
    segment's start, already divided by its playback speed.
    """

    video_id: str
    start: np.ndarray
    playback_speed: np.ndarray
    frames: list[bytes]
    log_mel: np.ndarray
    words: list[list[Word]]
    metadata: VideoMetadata = field(default_factory=VideoMetadata)

    def __len__(self) -> int:
        return len(self.start)


@dataclass(slots=True)
class ExampleText:
    """The text side of one example of S segments: what masking needs, and nothing else.

    `token_ids` int32 [n]; `token_start`, `token_end` float32 [n] seconds from the start of the token's segment,
    divided by its playback speed; `token_segment` int32 [n], non-decreasing, in [0, S); `playback_speed` int32 [S];
    `video_src_index` int32 [S], which source video each segment came from; `title`, `description`, `tags`
    int32 [*], without their "title:" prefixes; `random_text` int32 [m]; `random_text_is_plain` bool [m], true where
    the token's id exceeds 10 and its text matches [ A-Za-z0-9']*.
    """

    token_ids: np.ndarray
    token_start: np.ndarray
    token_end: np.ndarray
    token_segment: np.ndarray
    playback_speed: np.ndarray
    video_src_index: np.ndarray
    title: np.ndarray
    description: np.ndarray
    tags: np.ndarray
    random_text: np.ndarray
    random_text_is_plain: np.ndarray


@dataclass(frozen=True, slots=True)
class MetadataPrefixes:
    """What "title:", "description:" and "tags:" are in the vocabulary in use: int32 [*] each (SPEC 7)."""

    title: np.ndarray
    description: np.ndarray
    tags: np.ndarray


@dataclass(slots=True)
class TokenStream:
    """Token ids with their pointers (SPEC 7), int32 arrays of one shape [sequences, length].

    `audio_ptr`: the subsegment a token belongs to, or -1; `text_ptr`: the text span a MASK must predict, or -1.
    """

    ids: np.ndarray
    audio_ptr: np.ndarray
    text_ptr: np.ndarray


@dataclass(slots=True)
class MaskedText:
    """One example after masking: the four streams of SPEC 7 and the spans they must predict.

    `text2audio`, `audio2text` [G, lang_seq_len]; `audio_text_matching`, `random_text` [1, seq_len];
    `text_spans` int32 [spans, text_span_length], padded with PAD, ordered text2audio, audio2text, random_text.
    """

    text2audio: TokenStream
    audio2text: TokenStream
    audio_text_matching: TokenStream
    random_text: TokenStream
    text_spans: np.ndarray
