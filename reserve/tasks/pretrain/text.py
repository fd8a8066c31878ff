"""The text of one pretraining example, before and after masking."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reserve.batch.streams import TokenStream


@dataclass(slots=True)
class UnmaskedText:
    """The text of one example of S segments, as the input of masking.

    `token_ids` int32 [n]; `token_start`, `token_end` float32 [n] seconds from the start of the token's segment,
    divided by its playback speed; `token_segment` int32 [n], non-decreasing, in [0, S); `playback_speed` int32 [S];
    `video_src_index` int32 [S], the source video of each segment; `title`, `description`, `tags`
    int32 [*], without their "title:" prefixes; `random_text` int32 [m]; `random_text_is_plain` bool [m], true if
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
    """Token ids of "title:", "description:" and "tags:", int32 [*] each (SPEC 7)."""

    title: np.ndarray
    description: np.ndarray
    tags: np.ndarray


@dataclass(slots=True)
class MaskedText:
    """One example after masking: the four streams of SPEC 7 and the spans to predict.

    `text2audio`, `audio2text` [G, lang_seq_len]; `audio_text_matching`, `random_text` [1, seq_len];
    `text_spans` int32 [spans, text_span_length], padded with PAD, ordered text2audio, audio2text, random_text.
    """

    text2audio: TokenStream
    audio2text: TokenStream
    audio_text_matching: TokenStream
    random_text: TokenStream
    text_spans: np.ndarray
