"""Masks by token: the same words around them, one MASK a token, and what each predicts."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.learning.token_masks import expand_masks
from reserve.batch.streams import TokenStream
from reserve.batch.vocabulary import MASK, MASKAUDIO, PAD
from reserve.tasks.pretrain.text import MaskedText

LONGEST = 4


def stream(ids: list[int], text_ptr: list[int]) -> TokenStream:
    return TokenStream(
        np.array([ids], np.int32), np.arange(len(ids), dtype=np.int32)[None], np.array([text_ptr], np.int32)
    )


@pytest.fixture
def text() -> MaskedText:
    """Span 0 has three tokens, span 1 none, span 2 one."""
    empty = stream([PAD], [-1])
    spans = np.array([[21, 22, 23, PAD], [PAD] * 4, [31, PAD, PAD, PAD]], np.int32)
    text2audio = stream([50, MASK, MASKAUDIO, 51, MASK, MASKAUDIO, PAD], [-1, 0, 0, -1, 1, 1, -1])
    return MaskedText(text2audio, empty, empty, stream([60, MASK], [-1, 2]), spans)


def test_a_span_has_a_mask_for_each_token_and_an_empty_one_keeps_its_mask(text):
    ids = expand_masks(text).text2audio.ids[0]
    assert ids[:9].tolist() == [50, MASK, MASK, MASK, MASKAUDIO, 51, MASK, MASKAUDIO, PAD]
    assert (ids[8:] == PAD).all()


def test_masks_predict_the_tokens_of_their_span_in_order(text):
    found = expand_masks(text)
    for name, tokens in (("text2audio", [21, 22, 23, PAD]), ("random_text", [31])):
        of = getattr(found, name)
        pointers = of.text_ptr[of.ids == MASK]
        assert found.text_spans[pointers, 0].tolist() == tokens
        assert (found.text_spans[pointers, 1:] == PAD).all()


def test_copies_keep_their_subsegment(text):
    assert expand_masks(text).text2audio.audio_ptr[0, :8].tolist() == [0, 1, 1, 1, 2, 3, 4, 5]


def test_streams_of_all_examples_have_one_shape(text):
    short = MaskedText(text.text2audio, text.audio2text, text.audio_text_matching, text.random_text, text.text_spans[:])
    short.text_spans = np.full_like(text.text_spans, PAD)
    assert expand_masks(short).text2audio.ids.shape == expand_masks(text).text2audio.ids.shape
