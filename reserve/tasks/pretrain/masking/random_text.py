"""The stream random_text and its text spans (SPEC 7)."""

from __future__ import annotations

import numpy as np

from reserve.batch.streams import TokenStream
from reserve.batch.vocabulary import MASK
from reserve.config import DataConfig, ModelConfig
from reserve.tasks.pretrain.masking.choices import MaskingChoices
from reserve.tasks.pretrain.masking.rows import make_tokens, mask_rows, pad_spans, select_rows, stack_streams
from reserve.tasks.pretrain.masking.truncation import cut_right
from reserve.tasks.pretrain.text import UnmaskedText


def random_text_stream(
    text: UnmaskedText, choices: MaskingChoices, data: DataConfig, model: ModelConfig
) -> tuple[TokenStream, np.ndarray]:
    """The stream [1, seq_len], unrelated text with some fake spans masked, and the spans [budget, span].

    If the text is too short for text_span_budget spans, the last spans are empty and have no MASK.
    """
    ids, lengths = text.random_text, choices.span_lengths
    start, stop = choices.span_offset, choices.span_offset + lengths.sum()
    masked = mask_rows(
        ids[start:stop],
        lengths,
        choices.masked_spans,
        mask_ids=(MASK,),
        first_span=2 * data.num_masked_subsegments,
    )
    room = max(data.seq_len - len(masked), 0)
    before = ids[start - min(start, room // 2) : start]
    after = ids[stop : stop + (room + 1) // 2]
    tokens = np.concatenate([make_tokens(before, 0), masked, make_tokens(after, len(lengths))])

    is_plain = text.random_text_is_plain[start:stop]
    plain_lengths = np.bincount(np.repeat(np.arange(len(lengths)), lengths)[is_plain], minlength=len(lengths))
    spans = pad_spans(
        *select_rows(ids[start:stop][is_plain], plain_lengths, choices.masked_spans),
        data.text_span_budget,
        model.text_span_length,
    )
    return stack_streams([cut_right(tokens, data.seq_len, keep_id=MASK)], data.seq_len), spans
