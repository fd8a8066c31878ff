"""The stream audio_text_matching (SPEC 7)."""

from __future__ import annotations

import numpy as np

from reserve.batch.streams import TokenStream
from reserve.batch.vocabulary import AUDIOSPAN, END, LTOVPOOL, START
from reserve.config import DataConfig, ModelConfig
from reserve.tasks.pretrain.masking.rows import make_tokens, stack_streams
from reserve.tasks.pretrain.masking.truncation import cut_right
from reserve.tasks.pretrain.text import MetadataPrefixes, UnmaskedText


def matching_stream(
    text: UnmaskedText, prefixes: MetadataPrefixes, show_audio: bool, data: DataConfig, model: ModelConfig
) -> TokenStream:
    """The stream [1, seq_len]: the metadata, then for each segment LTOVPOOL and its audio or its words.

    The metadata is cut on the right to fit. If the words alone are too many, they are cut on the right too, but every
    segment keeps its LTOVPOOL, since the loss pairs it with the segment's frame.
    """
    rows = np.arange(data.num_subsegments)
    segment_starts = rows[:: data.num_audio_subsegments]
    if show_audio:
        pointers = np.repeat(rows, model.audio_token_length)
        content = make_tokens(np.full(len(pointers), AUDIOSPAN), pointers)
        pool_positions = segment_starts * model.audio_token_length
    else:
        content = make_tokens(text.token_ids, text.token_segment * data.num_audio_subsegments)
        pool_positions = np.searchsorted(text.token_segment, np.arange(data.num_segments))
    pools = make_tokens(np.full(data.num_segments, LTOVPOOL), segment_starts)
    segments = cut_right(np.insert(content, pool_positions, pools, axis=0), data.seq_len, keep_id=LTOVPOOL)

    metadata = np.concatenate(
        [
            *([START], prefixes.title, text.title),
            *([START], prefixes.description, text.description),
            *([START], prefixes.tags, text.tags),
            [END],
        ]
    )
    room = data.seq_len - len(segments)
    return stack_streams([np.concatenate([make_tokens(metadata[:room]), segments])], data.seq_len)
