from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reserve.batch.vocabulary import AUDIOSPAN, MASK, MASKAUDIO
from reserve.tasks.pretrain.masking.rows import make_tokens
from reserve.tasks.pretrain.masking.truncation import cut_right, truncate_group

WORD = 100
LETTERS = {"w": WORD, "M": MASK, "A": MASKAUDIO, "S": AUDIOSPAN}
NAMES = {value: key for key, value in LETTERS.items()}


def tokens_of(pattern: str) -> np.ndarray:
    """One token a letter, each its own subsegment."""
    return make_tokens(np.array([LETTERS[letter] for letter in pattern]), np.arange(len(pattern)))


def kept(pattern: str, length: int, scores: np.ndarray | None = None) -> list[int]:
    scores = np.zeros(len(pattern)) if scores is None else scores
    return truncate_group(tokens_of(pattern), length, scores, scores)[:, 1].tolist()


@pytest.mark.parametrize(
    ("pattern", "length", "expected"),
    [
        pytest.param("wwMww", 5, range(5), id="what fits stays"),
        pytest.param("wwMww", 9, range(5), id="what is short stays"),
        pytest.param("wwMww", 3, range(1, 4), id="both ends give alike"),
        pytest.param("wwMwww", 3, range(1, 4), id="the odd token comes from the right"),
        pytest.param("wMwwww", 4, range(1, 5), id="the left gives its half, the right the rest"),
        pytest.param("wwwwMw", 3, range(2, 5), id="the left gives more where the right runs out"),
        pytest.param("SSSMww", 4, range(4), id="the left stops at an AUDIOSPAN"),
        pytest.param("wSMSSS", 3, range(1, 4), id="the right may cut AUDIOSPANs"),
        pytest.param("wwwwww", 2, range(2, 4), id="without a mask both ends give"),
        pytest.param("SSSSSS", 2, range(2), id="without a mask the right gives down to the length"),
    ],
)
def test_the_ends_give(pattern: str, length: int, expected: range) -> None:
    assert kept(pattern, length) == list(expected)


def test_the_last_resort_keeps_masks_then_the_best_subsegments() -> None:
    scores = np.array([0.0, 0.9, 0.1, 0.8, 0.0])
    assert kept("MwwwM", 4, scores) == [0, 1, 3, 4]


def test_the_last_resort_keeps_a_subsegment_together() -> None:
    tokens = tokens_of("MwwwwM")
    tokens[:, 1] = [0, 1, 2, 1, 2, 3]
    token_scores = np.array([0, 0.1, 0.9, 0.2, 0.8, 0])
    left = truncate_group(tokens, 5, np.array([0, 0.7, 0.6, 0]), token_scores)
    assert left[:, 1].tolist() == [0, 1, 2, 1, 3]


@given(
    pattern=st.text(alphabet="wwwSMA", min_size=1, max_size=60),
    length=st.integers(1, 60),
    seed=st.integers(0, 2**32 - 1),
)
def test_truncation_loses_no_mask_that_fits_and_keeps_order(pattern: str, length: int, seed: int) -> None:
    result = kept(pattern, length, np.random.default_rng(seed).random(len(pattern)))
    assert result == sorted(set(result))
    assert len(result) == min(length, len(pattern))
    letters = "".join(pattern[index] for index in result)
    assert letters.count("M") == min(pattern.count("M"), length)


@given(
    pattern=st.text(alphabet="wwwSMA", min_size=1, max_size=60),
    length=st.integers(1, 60),
)
def test_targets_that_fit_with_what_lies_between_them_all_stay(pattern: str, length: int) -> None:
    first = min((pattern.find(letter) for letter in "MAS" if letter in pattern), default=len(pattern))
    last = max(pattern.rfind("M"), pattern.rfind("A"))
    result = kept(pattern, length)
    if last - first < length:
        assert {index for index, letter in enumerate(pattern) if letter in "MA"} <= set(result)
        assert result == list(range(result[0], result[-1] + 1)), "only the ends give"
        # So the AUDIOSPANs that are left start with the first, and count off their pooled tokens from there.
        assert result[0] <= first


@pytest.mark.parametrize(
    ("pattern", "length", "expected"),
    [
        ("wMwM", 4, [0, 1, 2, 3]),
        ("wMwww", 3, [0, 1, 2]),
        ("wMwwM", 3, [0, 1, 4]),
        ("wwMM", 2, [2, 3]),
        ("wMMM", 2, [1, 2]),
        ("MMww", 0, []),
    ],
)
def test_cut_right_steps_over_what_is_kept(pattern: str, length: int, expected: list[int]) -> None:
    assert cut_right(tokens_of(pattern), length, keep_id=MASK)[:, 1].tolist() == expected
