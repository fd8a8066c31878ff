"""The streams text2audio and audio2text and their text spans (SPEC 7)."""

from __future__ import annotations

import numpy as np

from reserve.batch.streams import TokenStream
from reserve.batch.vocabulary import MASK, MASKAUDIO
from reserve.config import DataConfig, ModelConfig
from reserve.tasks.pretrain.masking.alignment import Alignment, move_tokens
from reserve.tasks.pretrain.masking.choices import MaskingChoices
from reserve.tasks.pretrain.masking.rows import AUDIO_PTR, mask_rows, pad_spans, select_rows, stack_streams
from reserve.tasks.pretrain.masking.truncation import truncate_group


def text2audio_stream(
    token_ids: np.ndarray, alignment: Alignment, choices: MaskingChoices, data: DataConfig, model: ModelConfig
) -> tuple[TokenStream, np.ndarray]:
    """The stream [G, lang_seq_len], with MASK, MASKAUDIO for the words of each target, and the spans [T, span]."""
    targets = choices.text2audio_targets
    lengths = move_tokens(
        alignment,
        targets,
        fill_right_first=choices.fill_right_first,
        grow_right_first=choices.grow_right_first,
    )
    tokens = mask_rows(token_ids, lengths, targets, mask_ids=(MASK, MASKAUDIO), first_span=0)
    spans = pad_spans(*select_rows(token_ids, lengths, targets), len(targets), model.text_span_length)
    return _group_streams(tokens, choices.subsegment_scores[0], choices.token_scores[0], data), spans


def audio2text_stream(
    token_ids: np.ndarray, lengths: np.ndarray, choices: MaskingChoices, data: DataConfig, model: ModelConfig
) -> tuple[TokenStream, np.ndarray]:
    """The stream [G, lang_seq_len], audio with a MASK for the words of each target, and the spans [T, span].

    Most neighbours of a target stay text (`choices.keep_text`), so that audio that overlaps the target gives less away.
    """
    targets = choices.audio2text_targets
    is_target = np.zeros(len(lengths), dtype=bool)
    is_target[targets] = True
    is_neighbor = np.zeros(len(lengths), dtype=bool)
    is_neighbor[1:] |= is_target[:-1]
    is_neighbor[:-1] |= is_target[1:]
    tokens = mask_rows(
        token_ids,
        lengths,
        targets,
        mask_ids=(MASK,),
        first_span=len(choices.text2audio_targets),
        audio_rows=~is_target & ~(is_neighbor & choices.keep_text),
        audio_token_length=model.audio_token_length,
    )
    spans = pad_spans(*select_rows(token_ids, lengths, targets), len(targets), model.text_span_length)
    return _group_streams(tokens, choices.subsegment_scores[1], choices.token_scores[1], data), spans


def _group_streams(
    tokens: np.ndarray, subsegment_scores: np.ndarray, token_scores: np.ndarray, data: DataConfig
) -> TokenStream:
    """Splits the tokens of an example into its segment groups, each truncated or padded to lang_seq_len."""
    rows_per_group = data.segments_per_group * data.num_audio_subsegments
    boundaries = rows_per_group * np.arange(1, data.num_segment_groups)
    groups = np.split(tokens, np.searchsorted(tokens[:, AUDIO_PTR], boundaries))
    cut = [truncate_group(group, data.lang_seq_len, subsegment_scores, token_scores) for group in groups]
    return stack_streams(cut, data.lang_seq_len)
