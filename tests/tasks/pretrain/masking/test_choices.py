from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from reserve.config import DataConfig, ModelConfig
from reserve.tasks.pretrain.masking.choices import SPAN_LENGTH_PROBABILITIES, MaskingChoices, draw_masking_choices

DATA, MODEL = DataConfig(), ModelConfig()


def draws(make_text, count: int, **text) -> list[MaskingChoices]:
    rng = np.random.default_rng(0)
    example = make_text(DATA, [], **text)
    return [draw_masking_choices(example, DATA, MODEL, rng) for _ in range(count)]


def test_the_generator_alone_decides(make_text) -> None:
    text = make_text(DATA, [(0, 1, 2)], random_text=900)
    first, second = (
        dataclasses.asdict(draw_masking_choices(text, DATA, MODEL, np.random.default_rng(3))) for _ in range(2)
    )
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def test_targets_are_disjoint_and_every_subsegment_is_one_equally_often(make_text) -> None:
    counts = np.zeros((2, 48))
    for choices in draws(make_text, 1000):
        chosen = choices.text2audio_targets, choices.audio2text_targets
        assert len(np.union1d(*chosen)) == 24
        for count, targets in zip(counts, chosen, strict=True):
            assert len(targets) == 12
            count[targets] += 1
    # 250 expected; the standard deviation is √(1000 · 1/4 · 3/4) = 14, and the largest of 96 is rarely beyond 4.
    assert np.abs(counts - 250).max() < 4 * 14


@pytest.mark.parametrize(
    ("name", "probability"),
    [("fill_right_first", 0.5), ("grow_right_first", 0.5), ("show_audio", 0.5), ("keep_text", 0.8)],
)
def test_coins_fall_as_often_as_they_should(make_text, name: str, probability: float) -> None:
    coins = np.array([np.atleast_1d(getattr(choices, name)) for choices in draws(make_text, 1000)])
    assert abs(coins.mean() - probability) < 4 * np.sqrt(probability * (1 - probability) / coins.size)


def test_span_lengths_follow_their_distribution_and_fill_what_they_may(make_text) -> None:
    drawn = [choices.span_lengths for choices in draws(make_text, 200, random_text=2000)]
    totals = np.array([lengths.sum() for lengths in drawn])
    assert totals.max() <= 803
    assert totals.min() > 803 - 15, "one more span would have fitted"
    lengths = np.concatenate(drawn)
    frequency = np.bincount(lengths, minlength=16)[1:] / len(lengths)
    np.testing.assert_allclose(frequency, SPAN_LENGTH_PROBABILITIES, atol=0.01)


def test_the_block_of_spans_lies_anywhere_in_the_text(make_text) -> None:
    offsets = np.array([choices.span_offset for choices in draws(make_text, 500, random_text=1803)])
    # 1000 tokens and what the spans leave of 803 are free.
    assert offsets.min() < 30
    assert 970 < offsets.max() < 1015
    assert abs(offsets.mean() - 501.5) < 4 * 290 / np.sqrt(500)


def test_spans_with_an_unplain_token_are_masked_less(make_text) -> None:
    # One span of about five holds one of these tokens.
    not_plain = tuple(range(0, 900, 30))
    masked = {True: [], False: []}
    for choices in draws(make_text, 200, random_text=900, not_plain=not_plain):
        ends = choices.span_offset + np.cumsum(choices.span_lengths)
        for index, (start, end) in enumerate(zip(ends - choices.span_lengths, ends, strict=True)):
            plain = not any(start <= token < end for token in not_plain)
            masked[plain].append(index in choices.masked_spans)
    # Of about 130 spans 38 are drawn; the odds differ by a little less than the weights do, since plain ones run out.
    assert np.mean(masked[True]) > 3 * np.mean(masked[False]) > 0


@pytest.mark.parametrize("length", [0, 1, 2, 14, 100])
def test_short_text_gives_fewer_spans(make_text, length: int) -> None:
    for choices in draws(make_text, 20, random_text=length):
        assert choices.span_lengths.sum() <= length
        assert choices.span_offset + choices.span_lengths.sum() <= length
        assert len(choices.masked_spans) == min(len(choices.span_lengths), 38)
