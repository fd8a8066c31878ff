from __future__ import annotations

import numpy as np
import pytest

from reserve.config import DataConfig
from reserve.tasks.pretrain.masking.alignment import Alignment, align, move_tokens
from reserve.tasks.pretrain.masking.subsegments import inference_subsegment_starts

DATA = DataConfig(num_segments=2, num_segment_groups=1, text_span_budget=50)
STARTS = inference_subsegment_starts(DATA)
# Window centres at inference starts: (start + 30) * 588 / 22050 seconds.
CENTERS = [(start + 30) * 588 / 22050 for start in (2, 64, 126)]


def word(segment: int, center: float) -> tuple[int, float, float]:
    return segment, center - 0.1, center + 0.1


@pytest.mark.parametrize(
    ("seconds", "subsegment"),
    [
        (-3.0, 0),  # times outside the segment still have a nearest window
        (0.0, 0),
        (CENTERS[0], 0),
        ((CENTERS[0] + CENTERS[1]) / 2 - 0.01, 0),
        ((CENTERS[0] + CENTERS[1]) / 2 + 0.01, 1),
        (CENTERS[1], 1),
        ((CENTERS[1] + CENTERS[2]) / 2 + 0.01, 2),
        (5.0, 2),
        (99.0, 2),
    ],
)
def test_a_token_goes_to_the_nearest_window_center(make_text, seconds: float, subsegment: int) -> None:
    alignment = align(make_text(DATA, [word(1, seconds)]), STARTS, DATA, 60)
    assert alignment.lengths.argmax() == 3 + subsegment


def test_a_token_halfway_goes_to_the_earlier_window(make_text) -> None:
    # Binary fractions throughout, so that the two distances are exactly equal in float32.
    data = DataConfig(
        num_segments=1, num_segment_groups=1, num_audio_subsegments=2, mask_rate=0.5, num_text_spans_to_include=1,
        sample_rate=64, fft_hop_length=1, fft_window_size=2, spec_size=160,
    )  # fmt: skip
    alignment = align(make_text(data, [(0, 1.0, 1.5)]), np.array([[16, 80]]), data, 64)
    assert alignment.lengths.tolist() == [1, 0]


def test_tokens_never_go_back_within_a_segment(make_text) -> None:
    words = [word(0, CENTERS[2]), word(0, CENTERS[0]), word(1, CENTERS[0])]
    assert align(make_text(DATA, words), STARTS, DATA, 60).lengths.tolist() == [0, 0, 2, 1, 0, 0]


def test_an_example_without_words_aligns_to_empty_subsegments(make_text) -> None:
    alignment = align(make_text(DATA, []), STARTS, DATA, 60)
    assert alignment.lengths.tolist() == [0] * 6
    assert alignment.centers.shape == (0,)


def test_segments_start_after_the_real_time_of_those_before(make_text) -> None:
    text = make_text(DATA, [word(0, 1.0), word(1, 1.0)], playback_speed=[3, 1])
    alignment = align(text, STARTS, DATA, 60)
    np.testing.assert_allclose(alignment.centers, [1.0, 16.0])
    np.testing.assert_allclose(alignment.window_start[3:] - alignment.window_start[:3], 15.0, atol=1e-5)


def lay(rows: list[list[float]]) -> Alignment:
    """Tokens at the given centres in consecutive subsegments, whose windows are [0, 1], [1, 2], …"""
    return Alignment(
        lengths=np.array([len(row) for row in rows]),
        centers=np.array([center for row in rows for center in row], np.float32),
        window_start=np.arange(len(rows), dtype=np.float32),
        window_end=np.arange(1, len(rows) + 1, dtype=np.float32),
    )


# Far from every window, so that only empty targets take tokens.
FAR = 1e3

BOTH_COINS = [(False, False), (False, True), (True, False), (True, True)]


def moved(rows: list[list[float]], targets: list[int], fill_right_first: bool, grow_right_first: bool) -> list[int]:
    lengths = move_tokens(
        lay(rows),
        np.array(targets, dtype=np.int64),
        fill_right_first=fill_right_first,
        grow_right_first=grow_right_first,
    )
    return lengths.tolist()


@pytest.mark.parametrize("coins", BOTH_COINS)
@pytest.mark.parametrize(
    ("rows", "targets", "expected"),
    [
        pytest.param([[], [FAR, FAR]], [0], [1, 1], id="empty takes from the right"),
        pytest.param([[-FAR, -FAR], []], [1], [1, 1], id="empty takes from the left"),
        pytest.param([[], [FAR]], [0], [0, 1], id="a single token is not given"),
        pytest.param([[], [FAR, FAR]], [0, 1], [0, 2], id="a target does not give"),
        pytest.param([[], [], [FAR, FAR]], [0], [0, 0, 2], id="only direct neighbours give"),
        pytest.param([[], [FAR] * 3, []], [0, 2], [1, 1, 1], id="three tokens serve both sides"),
        pytest.param([[0.5], [1.1, 1.5]], [0], [2, 1], id="grows from the right within reach"),
        pytest.param([[0.5], [1.125, 1.5]], [0], [1, 2], id="0.125 s is out of reach"),
        pytest.param([[0.5, 0.9], [1.5]], [1], [1, 2], id="grows from the left within reach"),
        pytest.param([[0.5, 0.875], [1.5]], [1], [2, 1], id="0.125 s is out of reach on the left"),
        pytest.param([[0.5], [1.1]], [0], [1, 1], id="a last token is not taken"),
        pytest.param([[0.5], [1.1, 1.2]], [0, 1], [1, 2], id="targets do not grow from each other"),
        pytest.param([[0.1, 0.9], [1.5], [2.1, 2.5]], [1], [1, 3, 1], id="a target grows on both sides"),
        pytest.param([[0.5], [1.5, 1.1]], [0], [2, 1], id="the nearest centre counts, the first token moves"),
        pytest.param([[], [1.1, 1.1, 1.1]], [0], [2, 1], id="a filled target grows too"),
        pytest.param([[], []], [0, 1], [0, 0], id="no tokens at all"),
        pytest.param([[0.5], [1.1, 1.2]], [], [1, 2], id="no targets"),
    ],
)
def test_moves_towards_targets(
    rows: list[list[float]], targets: list[int], expected: list[int], coins: tuple[bool, bool]
) -> None:
    assert moved(rows, targets, *coins) == expected


@pytest.mark.parametrize(("right_first", "expected"), [(True, [1, 1, 0]), (False, [0, 1, 1])])
def test_the_first_pass_of_filling_has_the_pick(right_first: bool, expected: list[int]) -> None:
    # The middle can give one token only: from the right pass it goes to the target on its left.
    assert moved([[], [FAR, FAR], []], [0, 2], right_first, not right_first) == expected


@pytest.mark.parametrize(("right_first", "expected"), [(True, [2, 1, 1]), (False, [1, 1, 2])])
def test_the_first_pass_of_growing_has_the_pick(right_first: bool, expected: list[int]) -> None:
    assert moved([[0.5], [1.1, 1.9], [2.5]], [0, 2], not right_first, right_first) == expected
