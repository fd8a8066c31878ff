"""Choosing spans and sources, finding targets, and errors for contradictory streams."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from reserve.batch.vocabulary import AUDIOSPAN, LTOVPOOL, MASK, MASKAUDIO, PAD
from reserve.config import DataConfig, ModelConfig
from reserve.tasks.pretrain.batch import keep_spans, pack_batch, span_sources, span_streams, split_sources
from reserve.tasks.pretrain.text import MaskedText
from tests.helpers.random_batches import random_batch

DATA = DataConfig(num_segments=4, lang_seq_len=40, seq_len=70, text_span_budget=5, num_text_spans_to_include=6)
MODEL = ModelConfig(hidden_size=64, vocab_size=50, vit_patch_size=4, output_grid=(2, 2))


def test_sources_are_split_at_every_inner_boundary_as_often_as_asked() -> None:
    rng = np.random.default_rng(0)
    groups, n = 20000, 5
    original = np.tile(np.arange(n), (groups, 1))
    added = split_sources(original, rng, probability=0.3) - original
    assert set(np.unique(added)) == {0, 4 * n}
    moved = (added > 0).sum(1)
    assert (np.diff(added, axis=1) >= 0).all()
    assert (added[:, 0] == 0).all()
    for inner in range(1, n):
        # Four standard errors of a proportion of 0.075.
        assert abs((moved == inner).mean() - 0.3 / (n - 1)) < 4 * np.sqrt(0.075 * 0.925 / groups)


def test_one_group_in_ten_is_split_by_default() -> None:
    groups = 20000
    split = (split_sources(np.zeros((groups, 8), int), np.random.default_rng(0)) > 0).any(1)
    # Four standard errors.
    assert abs(split.mean() - 0.1) < 4 * np.sqrt(0.1 * 0.9 / groups)


def test_group_of_one_segment_is_never_split() -> None:
    original = np.array([[3], [4]])
    assert split_sources(original, np.random.default_rng(0), probability=1.0).tolist() == original.tolist()


@pytest.fixture
def texts() -> list[MaskedText]:
    return random_batch(3, DATA, MODEL, np.random.default_rng(5)).texts


def validity(texts: list[MaskedText]) -> np.ndarray:
    """bool [B, spans]: whether the span is not empty and one of the streams has its MASK."""
    valid = np.zeros((len(texts), DATA.num_text_spans), bool)
    for b, text in enumerate(texts):
        for stream in (text.text2audio, text.audio2text, text.random_text):
            for span in stream.text_ptr[stream.ids == MASK]:
                valid[b, span] = (text.text_spans[span] != PAD).any()
    return valid


def test_valid_spans_are_kept_first_and_multimodal_ones_are_preferred(texts: list[MaskedText]) -> None:
    streams, spans = span_streams(texts), np.stack([text.text_spans for text in texts])
    valid = validity(texts).ravel()
    multimodal = (np.arange(DATA.num_text_spans) < 2 * DATA.num_masked_subsegments)[None].repeat(3, 0).ravel()
    rng = np.random.default_rng(0)
    counts = np.zeros(valid.size)
    for _ in range(4000):
        kept = keep_spans(streams, spans, rng.gumbel(size=spans.shape[:2]), 1)
        assert len(kept) == 3
        assert valid[kept].all()
        counts[kept[0]] += 1
    # By the Gumbel-max trick the best span is a sample with weights 4 and 1.
    weights = np.where(valid, np.where(multimodal, 4.0, 1.0), 0.0)
    expected = weights / weights.sum()
    assert (np.abs(counts / 4000 - expected) <= 5 * np.sqrt(expected * (1 - expected) / 4000)).all()


def test_invalid_spans_fill_up_and_none_is_kept_twice(texts: list[MaskedText]) -> None:
    streams, spans = span_streams(texts), np.stack([text.text_spans for text in texts])
    kept = keep_spans(streams, spans, np.zeros(spans.shape[:2]), DATA.num_text_spans)
    assert sorted(kept) == list(range(spans.shape[0] * spans.shape[1]))
    valid = validity(texts).ravel()[kept]
    assert (np.diff(valid.astype(int)) <= 0).all()


def test_without_a_number_every_valid_span_is_kept(texts: list[MaskedText]) -> None:
    streams, spans = span_streams(texts), np.stack([text.text_spans for text in texts])
    kept = keep_spans(streams, spans, np.zeros(spans.shape[:2]), None)
    assert kept.tolist() == np.flatnonzero(validity(texts)).tolist()


def pack(change: Callable[[MaskedText], None]):
    raw = random_batch(2, DATA, MODEL, np.random.default_rng(6))
    change(raw.texts[1])
    return pack_batch(raw.images, raw.clips, raw.texts, raw.choices, DATA, MODEL)


def test_targets_point_at_their_tokens() -> None:
    raw = random_batch(2, DATA, MODEL, np.random.default_rng(6))
    batch = pack_batch(raw.images, raw.clips, raw.texts, raw.choices, DATA, MODEL)
    joint, targets = batch.joint, batch.targets
    stacked = torch.cat(
        (joint.text_ids, torch.full_like(joint.audio_index, -1), torch.full_like(joint.image_index, -2))
    )
    ids = stacked[joint.order]
    for rows, token in [(targets.pool_rows, LTOVPOOL), (targets.audio_rows, MASKAUDIO), (targets.span_rows, MASK)]:
        assert (rows >= 0).any()
        assert (ids[rows[rows >= 0]] == token).all()
    every = torch.cat((targets.audio_index.view(2, -1), targets.audio_extra.view(2, -1)), 1).sort(1).values
    assert every.flatten().tolist() == list(range(2 * DATA.num_subsegments))
    assert ((targets.span_source >= 0) == (targets.span_rows >= 0)).all()


@pytest.mark.parametrize(
    ("stream", "heard"), [("text2audio", 0), ("audio2text", 1), ("audio_text_matching", 1), ("random_text", 0)]
)
def test_only_two_streams_hear_their_audiospans(stream: str, heard: int) -> None:
    def only_words(text: MaskedText) -> None:
        for name in ("text2audio", "audio2text", "audio_text_matching", "random_text"):
            ids = getattr(text, name).ids
            ids[ids == AUDIOSPAN] = 11

    def one_audiospan(text: MaskedText) -> None:
        only_words(text)
        ids = getattr(text, stream).ids
        ids[tuple(np.argwhere(ids >= 10)[0])] = AUDIOSPAN

    assert len(pack(one_audiospan).joint.audio_index) - len(pack(only_words).joint.audio_index) == heard


def set_first(stream: str, part: str, value: int, token: int | None = None) -> Callable[[MaskedText], None]:
    def change(text: MaskedText) -> None:
        chosen = getattr(text, stream)
        where = tuple(np.argwhere(chosen.ids == token)[0]) if token is not None else (0, 0)
        getattr(chosen, part)[where] = value

    return change


def two_masks_of_one_span(text: MaskedText) -> None:
    stream = text.random_text
    stream.ids[0, :2], stream.text_ptr[0, :2] = MASK, DATA.num_text_spans - 1


def too_many_pools(text: MaskedText) -> None:
    text.audio_text_matching.ids[0, : DATA.num_segments + 1] = LTOVPOOL


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_first("random_text", "text_ptr", 11, MASK), r"random_text: a MASK's text_ptr must be in \[0, 11\)"),
        (set_first("audio2text", "text_ptr", -1, MASK), "audio2text: a MASK's text_ptr must be in"),
        (set_first("text2audio", "audio_ptr", -1, MASKAUDIO), r"a MASKAUDIO's audio_ptr must be in \[0, 12\)"),
        (set_first("text2audio", "audio_ptr", 12, MASKAUDIO), r"a MASKAUDIO's audio_ptr must be in \[0, 12\)"),
        (two_masks_of_one_span, "random_text: two MASKs predict the same text span"),
        (too_many_pools, r"at most 4 LTOVPOOL per example; got \d"),
    ],
)
def test_contradiction_is_named(change: Callable[[MaskedText], None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack(change)


def test_sources_of_spans(texts: list[MaskedText]) -> None:
    sources = span_sources(span_streams(texts), DATA.num_text_spans)
    masked = DATA.num_masked_subsegments
    for part, allowed in [
        (sources[:, :masked], 0),
        (sources[:, masked : 2 * masked], 1),
        (sources[:, 2 * masked :], 2),
    ]:
        assert set(np.unique(part)) <= {-1, allowed}
