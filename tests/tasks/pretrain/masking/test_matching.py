from __future__ import annotations

import numpy as np
import pytest

from reserve.batch.vocabulary import AUDIOSPAN, END, LTOVPOOL, PAD, START
from reserve.config import DataConfig, ModelConfig
from reserve.tasks.pretrain.masking.matching import matching_stream

MODEL = ModelConfig()
DATA = DataConfig(num_segments=4, num_segment_groups=2, text_span_budget=50)
PREFIXES = [[3388, 35], [2026, 35], [10884, 35]]


def test_words_follow_their_segments_pool(make_text, prefixes) -> None:
    text = make_text(DATA, [(0, 1, 2), (0, 2, 3), (2, 1, 2)], metadata=(2, 0, 1))
    stream = matching_stream(text, prefixes, False, DATA, MODEL)
    metadata = [START, *PREFIXES[0], 50, 50, START, *PREFIXES[1], START, *PREFIXES[2], 52, END]
    expected = [*metadata, LTOVPOOL, 100, 101, LTOVPOOL, LTOVPOOL, 102, LTOVPOOL]
    assert stream.ids[0, : len(expected)].tolist() == expected
    assert (stream.ids[0, len(expected) :] == PAD).all()
    pointers = [-1] * len(metadata) + [0, 0, 0, 3, 6, 6, 9]
    assert stream.audio_ptr[0, : len(expected)].tolist() == pointers
    assert (stream.audio_ptr[0, len(expected) :] == -1).all()
    assert (stream.text_ptr == -1).all()


def test_audio_follows_its_segments_pool(make_text, prefixes) -> None:
    stream = matching_stream(make_text(DATA, [(0, 1, 2)]), prefixes, True, DATA, MODEL)
    start = np.flatnonzero(stream.ids[0] == LTOVPOOL)[0]
    segment = [LTOVPOOL] + [AUDIOSPAN] * 18
    assert stream.ids[0, start : start + 76].tolist() == segment * 4
    assert stream.audio_ptr[0, start : start + 38].tolist() == [
        0,
        *np.repeat([0, 1, 2], 6),
        3,
        *np.repeat([3, 4, 5], 6),
    ]
    assert 100 not in stream.ids


@pytest.mark.parametrize("show_audio", [False, True])
def test_metadata_is_cut_on_the_right_to_what_is_left(make_text, prefixes, show_audio: bool) -> None:
    text = make_text(DATA, [(1, 1, 2)], metadata=(5, 2000, 7))
    stream = matching_stream(text, prefixes, show_audio, DATA, MODEL)
    assert (stream.ids != PAD).all()
    assert stream.ids[0, :11].tolist() == [START, *PREFIXES[0], 50, 50, 50, 50, 50, START, *PREFIXES[1]]
    first_pool = DATA.seq_len - (76 if show_audio else 5)
    assert (stream.ids[0, 11:first_pool] == 51).all()
    assert stream.ids[0, first_pool] == LTOVPOOL
    assert (stream.ids == LTOVPOOL).sum() == 4


def test_too_many_words_leave_no_metadata_but_every_pool(make_text, prefixes) -> None:
    words = [(segment, 1, 2) for segment in range(4) for _ in range(220)]
    stream = matching_stream(make_text(DATA, words, metadata=(5, 5, 5)), prefixes, False, DATA, MODEL)
    # A plain cut would lose the last segment's pool.
    expected = np.insert(100 + np.arange(636), [0, 220, 440, 636], LTOVPOOL)
    np.testing.assert_array_equal(stream.ids[0], expected)
