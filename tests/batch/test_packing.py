"""Packing: each valid token once, in the group of its sequence and video, with its coordinates."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from reserve.batch.coordinates import grid_coordinates
from reserve.batch.packing import pack_joint, pack_spans
from reserve.batch.streams import JointStream, pool_count
from reserve.batch.vocabulary import AUDIOSPAN, LTOVPOOL, PAD


def test_spans_lose_their_padding_and_keep_their_positions() -> None:
    packed = pack_spans(np.array([[11, 12, PAD], [PAD, PAD, PAD], [13, PAD, 14]]))
    assert packed.token_ids.tolist() == [PAD, 11, 12, PAD, PAD, 13, 14]
    assert packed.is_cls.tolist() == [True, False, False, True, True, False, False]
    assert (packed.coordinates[:, 0] * 16).tolist() == [0, 1, 2, 0, 0, 1, 3]
    assert packed.cu_seqlens.tolist() == [0, 3, 4, 7]
    assert packed.max_seqlen == 3


def test_no_spans_pack_to_nothing() -> None:
    packed = pack_spans(np.zeros((0, 15), np.int32))
    assert packed.cu_seqlens.tolist() == [0]
    assert packed.token_ids.numel() == 0


def test_pool_count_includes_the_token_itself() -> None:
    assert pool_count(np.array([[11, LTOVPOOL, 12, LTOVPOOL]])).tolist() == [[0, 1, 1, 2]]


def test_audiospans_take_pooled_tokens_in_turn_whatever_their_subsegment() -> None:
    stream = JointStream(
        name="audio2text",
        ids=np.array([[AUDIOSPAN, AUDIOSPAN, 11, AUDIOSPAN], [AUDIOSPAN, PAD, PAD, PAD]]),
        audio_ptr=np.array([[0, 0, 1, 1], [2, -1, -1, -1]]),
        segment=np.zeros((2, 4), np.int64),
        example=np.array([0, 1]),
    )
    packed = pack_joint([stream], subsegments=3, audio_tokens=2, pooled_grid=(1, 1))
    # Row = (example * 3 + subsegment) * 2 + (k mod 2).
    assert packed.audio_index.tolist() == [0, 1, 2, 10]
    assert packed.text_ids.tolist() == [11]


def test_audiospan_is_a_word_in_a_stream_without_audio() -> None:
    zeros = np.zeros((1, 1), np.int64)
    stream = JointStream("text2audio", zeros + AUDIOSPAN, zeros, zeros, np.array([0]), with_audio=False)
    packed = pack_joint([stream], subsegments=3, audio_tokens=2, pooled_grid=(1, 1))
    assert packed.text_ids.tolist() == [AUDIOSPAN]
    assert packed.audio_index.numel() == 0


def random_stream(rng: np.random.Generator, name: str) -> JointStream:
    n, length, segments = rng.integers(1, 4), rng.integers(1, 9), rng.integers(1, 4)
    with_images = rng.random() < 0.7
    return JointStream(
        name=name,
        ids=rng.choice([PAD, AUDIOSPAN, 11, 12, 13], (n, length)),
        audio_ptr=rng.integers(-1, 6, (n, length)),
        segment=rng.integers(0, segments, (n, length)),
        example=rng.integers(0, 3, n),
        images=rng.integers(0, 10, (n, segments)) if with_images else None,
        source=rng.integers(0, 3, (n, segments)) if with_images and rng.random() < 0.7 else None,
    )


@given(st.integers(0, 2**32))
def test_every_valid_token_is_packed_once_in_its_group(seed: int) -> None:
    rng = np.random.default_rng(seed)
    streams = [random_stream(rng, f"stream {i}") for i in range(rng.integers(1, 4))]
    grid = (1, 2)
    packed = pack_joint(streams, subsegments=6, audio_tokens=2, pooled_grid=grid)
    starts = packed.cu_seqlens.tolist()
    indices = [packed.text_ids, -1 - packed.audio_index, 1000 + packed.image_index]
    stacked = np.concatenate([index.numpy() for index in indices])
    values = stacked[packed.order.numpy()]

    expected_tokens = []  # (stream, sequence, source), value, coordinates
    for number, stream in enumerate(streams):
        for i in range(len(stream.ids)):
            nth = 0
            for j, token in enumerate(stream.ids[i]):
                if token == PAD:
                    assert packed.rows[stream.name][i, j] == -1
                    continue
                value = token
                if token == AUDIOSPAN:
                    value = -1 - ((stream.example[i] * 6 + max(stream.audio_ptr[i, j], 0)) * 2 + nth % 2)
                    nth += 1
                segment = stream.segment[i, j]
                source = 0 if stream.source is None else stream.source[i, segment]
                coordinate = (0.0, 0.0, segment / 16, (j + 1) / 1024)
                expected_tokens.append(((number, i, source), value, coordinate))
                row = packed.rows[stream.name][i, j]
                assert values[row] == value
                assert tuple(packed.coordinates[row].tolist()) == coordinate
            if stream.images is not None:
                for segment, image in enumerate(stream.images[i]):
                    source = 0 if stream.source is None else stream.source[i, segment]
                    for cell, (h, w) in enumerate(grid_coordinates(*grid).tolist()):
                        expected_tokens.append(
                            ((number, i, source), 1000 + image * 2 + cell, (h, w, segment / 16, 0.0))
                        )

    groups = [
        sorted(zip(values[a:b], map(tuple, packed.coordinates[a:b].tolist()), strict=True)) for a, b in pairwise(starts)
    ]
    expected = [
        sorted((value, coordinate) for k, value, coordinate in expected_tokens if k == key)
        for key in sorted({key for key, _, _ in expected_tokens})
    ]
    assert groups == expected
    assert packed.max_seqlen == max((len(group) for group in groups), default=0)


def test_moving_keeps_every_field() -> None:
    packed = pack_spans(np.array([[11, 12, PAD]]))
    moved = packed.to("cpu")
    assert type(moved) is type(packed)
    assert moved.max_seqlen == packed.max_seqlen
    assert torch.equal(moved.token_ids, packed.token_ids)
