"""A MASK for every token of a masked span, in place of one for the whole span."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from reserve.batch.streams import TokenStream
from reserve.batch.vocabulary import MASK, PAD
from reserve.tasks.pretrain.batch import SPAN_SOURCES
from reserve.tasks.pretrain.text import MaskedText


def expand_masks(text: MaskedText) -> MaskedText:
    """The text with as many MASKs for a span as it has tokens, each predicting one token.

    Streams that are already truncated grow, so that nothing of them is lost and their other words stay the same. The
    spans [n, length] become [n * length, length] spans of one token: token k of span i is the span i * length + k,
    which is also the text pointer of its MASK. A span without tokens keeps its one MASK, which then predicts nothing.
    """
    streams = {name: _expanded(getattr(text, name), text.text_spans) for name in SPAN_SOURCES}
    tokens = np.full((text.text_spans.size, text.text_spans.shape[1]), PAD, dtype=np.int32)
    tokens[:, 0] = text.text_spans.ravel()
    return replace(text, text_spans=tokens, **streams)


def _expanded(stream: TokenStream, spans: np.ndarray) -> TokenStream:
    """Each sequence has room for all spans of the stream at their longest, so that those of a batch can be stacked."""
    lengths = np.maximum((spans != PAD).sum(1), 1)
    predicts = (stream.ids == MASK) & (stream.text_ptr >= 0)
    copies = np.where(predicts, lengths[stream.text_ptr], 1)
    shape = (len(stream.ids), stream.ids.shape[1] + len(spans) * (spans.shape[1] - 1))
    ids, audio_ptr, text_ptr = np.full(shape, PAD, np.int32), np.full(shape, -1, np.int32), np.full(shape, -1, np.int32)
    for row, times in enumerate(copies):
        used = slice(0, int(times.sum()))
        nth = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
        first = np.where(predicts[row], stream.text_ptr[row] * spans.shape[1], stream.text_ptr[row])
        ids[row, used] = np.repeat(stream.ids[row], times)
        audio_ptr[row, used] = np.repeat(stream.audio_ptr[row], times)
        text_ptr[row, used] = np.repeat(first, times) + np.where(np.repeat(predicts[row], times), nth, 0)
    return TokenStream(ids, audio_ptr, text_ptr)
