"""Which subsegments of audio2text stay text."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from reserve.batch.vocabulary import AUDIOSPAN, MASK, PAD
from reserve.config import DataConfig, ModelConfig
from reserve.tasks.pretrain.masking import draw_masking_choices
from reserve.tasks.pretrain.masking.multimodal import audio2text_stream

DATA = DataConfig(num_segments=4, lang_seq_len=60, seq_len=80, text_span_budget=6, num_text_spans_to_include=8)
MODEL = ModelConfig()
# Of the 12 subsegments; each has one word but the eighth.
TARGETS = np.array([0, 3, 5, 9])
LENGTHS = np.where(np.arange(12) == 8, 0, 1)


def shown(make_text, keep_text: np.ndarray) -> dict[int, set[int]]:
    """Kinds of the tokens of each subsegment: MASK, AUDIOSPAN or 100 for words."""
    text = make_text(DATA, [(row // 3, 1, 2) for row in np.flatnonzero(LENGTHS)])
    choices = dataclasses.replace(
        draw_masking_choices(text, DATA, MODEL, np.random.default_rng(0)),
        text2audio_targets=np.array([1, 2, 7]),
        audio2text_targets=TARGETS,
        keep_text=keep_text,
    )
    stream, _ = audio2text_stream(text.token_ids, LENGTHS, choices, DATA, MODEL)
    ids, rows = stream.ids[stream.ids != PAD], stream.audio_ptr[stream.ids != PAD]
    return {row: set(np.minimum(ids[rows == row], 100).tolist()) for row in range(12)}


def test_neighbors_on_both_sides_stay_text_and_the_others_are_heard(make_text) -> None:
    kinds = shown(make_text, np.ones(12, bool))
    assert {row for row, kind in kinds.items() if kind == {MASK}} == set(TARGETS.tolist())
    assert {row for row, kind in kinds.items() if kind == {100}} == {1, 2, 4, 6, 10}
    assert kinds[8] == set(), "a neighbour without words gives nothing"
    assert {row for row, kind in kinds.items() if kind == {AUDIOSPAN}} == {7, 11}


@pytest.mark.parametrize("kept", [1, 2, 4, 6, 10])
def test_every_neighbor_has_a_coin_of_its_own(make_text, kept: int) -> None:
    kinds = shown(make_text, np.arange(12) == kept)
    assert {row for row, kind in kinds.items() if kind == {100}} == {kept}
