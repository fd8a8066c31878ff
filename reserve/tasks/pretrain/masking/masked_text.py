"""Masks one example: UnmaskedText -> MaskedText (SPEC 7)."""

from __future__ import annotations

import numpy as np

from reserve.batch.vocabulary import AUDIOSPAN, LTOVPOOL, MASK, MASKAUDIO, PAD, SPECIAL_TOKENS
from reserve.config import DataConfig, ModelConfig
from reserve.tasks.pretrain.masking.alignment import align
from reserve.tasks.pretrain.masking.choices import MaskingChoices, draw_masking_choices
from reserve.tasks.pretrain.masking.matching import matching_stream
from reserve.tasks.pretrain.masking.multimodal import audio2text_stream, text2audio_stream
from reserve.tasks.pretrain.masking.random_text import random_text_stream
from reserve.tasks.pretrain.text import MaskedText, MetadataPrefixes, UnmaskedText

RESERVED_IDS = (PAD, MASK, MASKAUDIO, AUDIOSPAN, LTOVPOOL)
"""Ids that masking inserts: in text they would be taken for masks or audio."""


def mask_text(
    text: UnmaskedText,
    subsegment_starts: np.ndarray,
    prefixes: MetadataPrefixes,
    data: DataConfig,
    model: ModelConfig,
    rng: np.random.Generator,
) -> MaskedText:
    """Makes the four token streams of an example and the text spans to predict (SPEC 7).

    `subsegment_starts` int [S, A]: first mel frame of each audio subsegment that the model gets, from
    `draw_subsegment_starts`. All randomness comes from `rng`.

    Raises ValueError naming the field if the text does not fit the configuration or contains a reserved id.
    """
    _check(text, subsegment_starts, data)
    choices = draw_masking_choices(text, data, model, rng)
    return _build(text, subsegment_starts, prefixes, choices, data, model)


def apply_masking(
    text: UnmaskedText,
    subsegment_starts: np.ndarray,
    prefixes: MetadataPrefixes,
    choices: MaskingChoices,
    data: DataConfig,
    model: ModelConfig,
) -> MaskedText:
    """`mask_text` with fixed random choices. Raises ValueError like `mask_text`."""
    _check(text, subsegment_starts, data)
    return _build(text, subsegment_starts, prefixes, choices, data, model)


def _build(
    text: UnmaskedText,
    subsegment_starts: np.ndarray,
    prefixes: MetadataPrefixes,
    choices: MaskingChoices,
    data: DataConfig,
    model: ModelConfig,
) -> MaskedText:
    alignment = align(text, subsegment_starts, data, model.audio_seq_length)
    text2audio, text2audio_spans = text2audio_stream(text.token_ids, alignment, choices, data, model)
    audio2text, audio2text_spans = audio2text_stream(text.token_ids, alignment.lengths, choices, data, model)
    random_text, random_text_spans = random_text_stream(text, choices, data, model)
    return MaskedText(
        text2audio=text2audio,
        audio2text=audio2text,
        audio_text_matching=matching_stream(text, prefixes, choices.show_audio, data, model),
        random_text=random_text,
        text_spans=np.concatenate([text2audio_spans, audio2text_spans, random_text_spans]),
    )


def _check(text: UnmaskedText, subsegment_starts: np.ndarray, data: DataConfig) -> None:
    num_tokens, num_segments = len(text.token_ids), data.num_segments
    for name, array, shape in (
        ("token_start", text.token_start, (num_tokens,)),
        ("token_end", text.token_end, (num_tokens,)),
        ("token_segment", text.token_segment, (num_tokens,)),
        ("playback_speed", text.playback_speed, (num_segments,)),
        ("random_text_is_plain", text.random_text_is_plain, (len(text.random_text),)),
        ("subsegment_starts", subsegment_starts, (num_segments, data.num_audio_subsegments)),
    ):
        if array.shape != shape:
            raise ValueError(f"{name} must have shape {shape}; got {array.shape}")

    segment = text.token_segment
    if num_tokens and (segment[0] < 0 or segment[-1] >= num_segments or (np.diff(segment) < 0).any()):
        raise ValueError(
            f"token_segment must be non-decreasing within [0, {num_segments}); got {segment.min()} to {segment.max()}, "
            f"{int((np.diff(segment) < 0).sum())} decreases"
        )
    if not (np.isfinite(text.token_start).all() and np.isfinite(text.token_end).all()):
        raise ValueError("token_start and token_end must be finite; got NaN or infinity")
    for name in ("token_ids", "title", "description", "tags", "random_text"):
        found = np.intersect1d(getattr(text, name), RESERVED_IDS)
        if len(found):
            raise ValueError(f"{name} must contain text only; got the reserved token {SPECIAL_TOKENS[found[0]]}")
