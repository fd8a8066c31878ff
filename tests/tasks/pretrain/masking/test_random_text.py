from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from reserve.batch.vocabulary import MASK, PAD
from reserve.config import DataConfig, ModelConfig
from reserve.tasks.pretrain.masking.choices import MaskingChoices, draw_masking_choices
from reserve.tasks.pretrain.masking.random_text import random_text_stream

MODEL = ModelConfig()
# Two targets a direction, so the random text's spans start at 4.
DATA = DataConfig(
    num_segments=4, num_segment_groups=2, num_audio_subsegments=2, text_span_budget=3, seq_len=12,
    num_text_spans_to_include=7,
)  # fmt: skip


def choices_with(text, lengths: list[int], offset: int, masked: list[int]) -> MaskingChoices:
    return dataclasses.replace(
        draw_masking_choices(text, DATA, MODEL, np.random.default_rng(0)),
        span_lengths=np.array(lengths, np.int64),
        span_offset=offset,
        masked_spans=np.array(masked, np.int64),
    )


def masked_text(make_text, length: int, lengths: list[int], offset: int, masked: list[int], **text):
    example = make_text(DATA, [], random_text=length, **text)
    stream, spans = random_text_stream(example, choices_with(example, lengths, offset, masked), DATA, MODEL)
    return (
        np.where(stream.ids >= 20000, stream.ids - 20000, -stream.ids)[0].tolist(),
        stream.audio_ptr[0].tolist(),
        stream.text_ptr[0].tolist(),
        [(span[span != PAD] - 20000).tolist() for span in spans],
    )


def test_spans_are_masked_and_the_text_around_fills_up(make_text) -> None:
    ids, rows, spans_of, spans = masked_text(make_text, 100, [2, 3, 1, 2], 50, [1, 3])
    # 2 + 1 + 1 + 1 tokens are masked text, 7 are missing: 3 before and 4 after.
    assert ids == [47, 48, 49, 50, 51, -MASK, 55, -MASK, 58, 59, 60, 61]
    assert rows == [0, 0, 0, 0, 0, 1, 2, 3, 4, 4, 4, 4]
    assert spans_of == [-1] * 5 + [4, -1, 5] + [-1] * 4
    assert spans == [[52, 53, 54], [56, 57], []]


def test_missing_text_before_is_not_made_up_after(make_text) -> None:
    ids, *_ = masked_text(make_text, 100, [2, 3], 1, [0])
    # 8 are missing: half of them before, of which there is one, and half after.
    assert ids == [0, -MASK, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0]


def test_text_that_ends_is_padded(make_text) -> None:
    ids, rows, *_ = masked_text(make_text, 6, [2, 3], 0, [1])
    assert ids == [0, 1, -MASK, 5] + [0] * 8
    assert rows == [0, 0, 1, 2] + [-1] * 8


def test_empty_text_gives_an_empty_sequence(make_text) -> None:
    ids, rows, spans_of, spans = masked_text(make_text, 0, [], 0, [])
    assert ids == [0] * 12
    assert rows == spans_of == [-1] * 12
    assert spans == [[], [], []]


def test_spans_lose_their_unplain_tokens_and_the_text_around_keeps_them(make_text) -> None:
    ids, _, _, spans = masked_text(make_text, 100, [2, 3, 1], 50, [1, 2], not_plain=(51, 53, 55))
    assert spans == [[52, 54], [], []]
    assert 51 in ids


def test_too_long_text_is_cut_on_the_right(make_text) -> None:
    ids, *_ = masked_text(make_text, 100, [15], 50, [])
    assert ids == list(range(50, 62))


def test_a_mask_is_stepped_over_by_the_cut(make_text) -> None:
    ids, rows, spans_of, _ = masked_text(make_text, 100, [15, 1, 2], 50, [1])
    assert ids == [*range(50, 61), -MASK]
    assert rows == [0] * 11 + [1]
    assert spans_of == [-1] * 11 + [4]


@pytest.mark.parametrize("span_length", [2, 20])
def test_spans_follow_the_models_span_length(make_text, span_length: int) -> None:
    example = make_text(DATA, [], random_text=30)
    model = ModelConfig(text_span_length=span_length)
    _, spans = random_text_stream(example, choices_with(example, [5], 0, [0]), DATA, model)
    assert spans.shape == (3, span_length)
    assert spans[0, :2].tolist() == [20000, 20001]
    assert (spans[0] != PAD).sum() == min(span_length, 5)
