"""All random choices of masking an example, drawn in one place (SPEC 7)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reserve.config import DataConfig, ModelConfig
from reserve.tasks.pretrain.text import UnmaskedText

KEEP_TEXT_PROBABILITY = 0.8
"""Probability that a neighbour of an audio2text target stays text."""

SPAN_LENGTH_PROBABILITIES = np.array(
    [.03233, .05236, .08763, .11757, .13737, .13718, .12541, .10263, .07711, .05364, .03429, .02038, .01178, .00665,
     .00366]
)  # fmt: skip
"""Probabilities of 1, 2, … 15 tokens in a fake span of the random text: the distribution of spoken spans."""

NOT_PLAIN_WEIGHT = 0.2
"""Sampling weight of a fake span with a token that is not plain; other spans have weight 1."""


@dataclass(frozen=True, slots=True)
class MaskingChoices:
    """The random choices for one example of N subsegments, with T targets per direction.

    `text2audio_targets`, `audio2text_targets`: int [T], ascending, disjoint subsegments. `fill_right_first`,
    `grow_right_first`: whether text2audio's empty targets, and then all its targets, take tokens from the right before
    the left. `keep_text`: bool [N], whether a neighbour of an audio2text target stays text. `show_audio`: whether
    audio_text_matching has the audio rather than the words. `span_lengths`: int [spans], the lengths of the fake spans
    of the random text; `span_offset`: the token where the first starts; `masked_spans`: int [*], ascending, the ones to
    predict. `subsegment_scores` [2, N] and `token_scores` [2, at least the tokens of the longest group]: priorities in
    text2audio and audio2text, used if a group is too long even with its ends cut.
    """

    text2audio_targets: np.ndarray
    audio2text_targets: np.ndarray
    fill_right_first: bool
    grow_right_first: bool
    keep_text: np.ndarray
    show_audio: bool
    span_lengths: np.ndarray
    span_offset: int
    masked_spans: np.ndarray
    subsegment_scores: np.ndarray
    token_scores: np.ndarray


def draw_masking_choices(
    text: UnmaskedText, data: DataConfig, model: ModelConfig, rng: np.random.Generator
) -> MaskingChoices:
    """Draws the choices for one example, all of them from `rng`."""
    num_rows, num_targets = data.num_subsegments, data.num_masked_subsegments
    targets = rng.permutation(num_rows)
    fill_right_first, grow_right_first = rng.random(2) < 0.5
    keep_text = rng.random(num_rows) < KEEP_TEXT_PROBABILITY
    show_audio = rng.random() < data.use_audio_token_prob
    span_lengths, span_offset = _draw_spans(len(text.random_text), data, rng)
    masked_spans = _draw_masked_spans(text.random_text_is_plain, span_lengths, span_offset, data, rng)
    # A masked row has at most two tokens, and at most half of the rows are masked in one direction.
    most_tokens = len(text.token_ids) + num_rows * max(model.audio_token_length, 1)
    return MaskingChoices(
        text2audio_targets=np.sort(targets[:num_targets]),
        audio2text_targets=np.sort(targets[num_targets : 2 * num_targets]),
        fill_right_first=bool(fill_right_first),
        grow_right_first=bool(grow_right_first),
        keep_text=keep_text,
        show_audio=bool(show_audio),
        span_lengths=span_lengths,
        span_offset=span_offset,
        masked_spans=masked_spans,
        subsegment_scores=rng.random((2, num_rows)),
        token_scores=rng.random((2, most_tokens)),
    )


def _draw_spans(num_tokens: int, data: DataConfig, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Lengths int [spans] of consecutive fake spans of the random text, and the token where the first one starts."""
    probabilities = SPAN_LENGTH_PROBABILITIES / SPAN_LENGTH_PROBABILITIES.sum()
    mean = float(np.arange(1, len(probabilities) + 1) @ probabilities)
    # With this many tokens the masked sequence is expected to be a little shorter than seq_len: 0.85 is the margin.
    most = min(data.seq_len + int((0.85 * mean - 1) * data.text_span_budget), num_tokens)
    lengths = rng.choice(len(probabilities), size=most, p=probabilities) + 1
    lengths = lengths[np.cumsum(lengths) <= most]
    return lengths, int(rng.integers(max(num_tokens - lengths.sum(), 1)))


def _draw_masked_spans(
    is_plain: np.ndarray, lengths: np.ndarray, offset: int, data: DataConfig, rng: np.random.Generator
) -> np.ndarray:
    """Samples up to text_span_budget fake spans without replacement, in ascending order. Plain ones weigh more."""
    if not len(lengths):
        return np.zeros(0, dtype=np.int64)
    ends = np.cumsum(lengths)
    all_plain = np.logical_and.reduceat(is_plain[offset : offset + ends[-1]], ends - lengths)
    log_weight = np.log(np.where(all_plain, 1.0, NOT_PLAIN_WEIGHT))
    order = np.argsort(-(log_weight + rng.gumbel(size=len(lengths))))
    return np.sort(order[: data.text_span_budget])
