from __future__ import annotations

import numpy as np

from reserve.batch.vocabulary import AUDIOSPAN, MASK, MASKAUDIO, PAD
from reserve.tasks.pretrain.masking.rows import make_tokens, mask_rows, pad_spans, select_rows, stack_streams

IDS = np.arange(100, 106)
LENGTHS = np.array([2, 0, 3, 1])


def test_masked_rows_become_masks_and_audio_rows_audio() -> None:
    tokens = mask_rows(
        IDS,
        LENGTHS,
        np.array([1, 2]),
        mask_ids=(MASK, MASKAUDIO),
        first_span=7,
        audio_rows=np.array([False, False, False, True]),
        audio_token_length=2,
    )
    assert tokens.tolist() == [
        [100, 0, -1],
        [101, 0, -1],
        [MASK, 1, 7],
        [MASKAUDIO, 1, 7],
        [MASK, 2, 8],
        [MASKAUDIO, 2, 8],
        [AUDIOSPAN, 3, -1],
        [AUDIOSPAN, 3, -1],
    ]


def test_selected_rows_keep_their_order_and_empty_rows() -> None:
    ids, lengths = select_rows(IDS, LENGTHS, np.array([0, 1, 3]))
    assert ids.tolist() == [100, 101, 105]
    assert lengths.tolist() == [2, 0, 1]


def test_spans_are_cut_and_padded() -> None:
    spans = pad_spans(IDS, LENGTHS, num_spans=5, span_length=2)
    assert spans.tolist() == [[100, 101], [PAD, PAD], [102, 103], [105, PAD], [PAD, PAD]]


def test_streams_are_padded_without_pointers() -> None:
    stream = stack_streams([make_tokens(IDS[:1], 5), make_tokens(IDS[:0])], 2)
    assert stream.ids.tolist() == [[100, PAD], [PAD, PAD]]
    assert stream.audio_ptr.tolist() == [[5, -1], [-1, -1]]
    assert stream.text_ptr.tolist() == [[-1, -1], [-1, -1]]
    assert stream.ids.dtype == np.int32
