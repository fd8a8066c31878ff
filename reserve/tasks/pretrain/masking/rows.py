"""Token sequences with pointers, and masking of whole rows.

Tokens are int32 [length, 3] arrays with the columns ID, AUDIO_PTR, TEXT_PTR of SPEC 7. A row is masked as a whole: the
words of an audio subsegment, or a span of the random text. Rows are consecutive in a flat array of ids; `lengths` are
the numbers of ids in each.
"""

from __future__ import annotations

import numpy as np

from reserve.batch.streams import TokenStream
from reserve.batch.vocabulary import AUDIOSPAN, PAD

ID, AUDIO_PTR, TEXT_PTR = 0, 1, 2


def make_tokens(ids: np.ndarray, audio_ptr: int | np.ndarray = -1) -> np.ndarray:
    """Tokens [n, 3] from `ids` [n], without text pointers."""
    tokens = np.full((len(ids), 3), -1, dtype=np.int32)
    tokens[:, ID] = ids
    tokens[:, AUDIO_PTR] = audio_ptr
    return tokens


def mask_rows(
    ids: np.ndarray,
    lengths: np.ndarray,
    targets: np.ndarray,
    *,
    mask_ids: tuple[int, ...],
    first_span: int,
    audio_rows: np.ndarray | None = None,
    audio_token_length: int = 0,
) -> np.ndarray:
    """Tokens [*, 3] of all rows, with `mask_ids` in place of each of the `targets` (ascending).

    The AUDIO_PTR of a token is its row. The TEXT_PTR of a mask is the index of its row among the targets plus
    `first_span`. `audio_rows` bool [rows], which are not targets, become `audio_token_length` AUDIOSPAN each.
    """
    replaced = np.zeros(len(lengths), dtype=bool)
    replaced[targets] = True
    new_lengths = np.where(replaced, len(mask_ids), lengths)
    if audio_rows is not None:
        new_lengths[audio_rows] = audio_token_length
        replaced |= audio_rows

    rows = np.repeat(np.arange(len(lengths)), new_lengths)
    tokens = make_tokens(np.full(len(rows), AUDIOSPAN), rows)
    tokens[~replaced[rows], ID] = ids[~np.repeat(replaced, lengths)]
    is_mask = np.isin(rows, targets)
    tokens[is_mask, ID] = np.tile(mask_ids, len(targets))
    tokens[is_mask, TEXT_PTR] = np.repeat(first_span + np.arange(len(targets)), len(mask_ids))
    return tokens


def pad_spans(ids: np.ndarray, lengths: np.ndarray, num_spans: int, span_length: int) -> np.ndarray:
    """The rows as text spans int32 [num_spans, span_length], cut on the right and padded with PAD and empty spans."""
    rows = np.repeat(np.arange(len(lengths)), lengths)
    columns = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    kept = columns < span_length
    spans = np.full((num_spans, span_length), PAD, dtype=np.int32)
    spans[rows[kept], columns[kept]] = ids[kept]
    return spans


def select_rows(ids: np.ndarray, lengths: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ids and lengths of the given rows (ascending)."""
    return ids[np.isin(np.repeat(np.arange(len(lengths)), lengths), rows)], lengths[rows]


def stack_streams(sequences: list[np.ndarray], length: int) -> TokenStream:
    """Pads sequences of tokens [at most length, 3] on the right and stacks them to the stream [sequences, length]."""
    stream = np.full((len(sequences), length, 3), -1, dtype=np.int32)
    stream[..., ID] = PAD
    for row, tokens in zip(stream, sequences, strict=True):
        row[: len(tokens)] = tokens
    return TokenStream(*np.ascontiguousarray(stream.transpose(2, 0, 1)))
