"""Signatures: a pure function of words and pictures, little changed by how words are cut into segments."""

from __future__ import annotations

import numpy as np
import pytest

from reserve.data.filters.signature import (
    MIN_SHINGLES,
    PICTURES,
    SHINGLE,
    SIGNATURE_BYTES,
    SLOTS,
    make_signature,
    read_signature,
)
from reserve.errors import BadInput

TEXT = [f"number {n} of the many different phrases says {n * n} and {n * 7919 % 101}" for n in range(30)]
HASHES = [(n * 0x9E3779B97F4A7C15) % 2**64 for n in range(30)]


def slots(text):
    return np.frombuffer(read_signature(text)[-SLOTS:], np.uint8)


def test_the_signature_is_stable():
    """Signatures of different releases are compared, so they may not change without another version."""
    signature = make_signature(TEXT, HASHES)
    assert len(signature) == 2 * SIGNATURE_BYTES
    assert signature[:34] == "01157c4a7fb979379e3b455d75de214045"
    assert signature[-32:] == "02347aa0864d5777ca259c92d8903f81"


def test_case_spaces_and_punctuation_do_not_matter():
    other = [text.upper().replace(" ", ", ") for text in TEXT]
    assert make_signature(other, HASHES) == make_signature(TEXT, HASHES)


def test_words_are_compared_across_segments():
    joined = [f"{a} {b}" for a, b in zip(TEXT[::2], TEXT[1::2], strict=True)]
    assert (slots(make_signature(joined, HASHES[::2])) == slots(make_signature(TEXT, HASHES))).all()


def test_equal_slots_estimate_the_similarity():
    half = slots(make_signature(TEXT[:15], HASHES[:15])) == slots(make_signature(TEXT, HASHES))
    assert 0.3 < half.mean() < 0.7
    assert (
        slots(make_signature([text[::-1] for text in TEXT], HASHES)) == slots(make_signature(TEXT, HASHES))
    ).sum() < 5


def test_a_frame_is_that_of_the_segment_with_its_phrase():
    """So it follows the phrase when other segments come before."""
    whole, late = read_signature(make_signature(TEXT, HASHES)), read_signature(make_signature(TEXT[5:], HASHES[5:]))
    equal = slots(whole.hex())[:PICTURES] == slots(late.hex())[:PICTURES]
    a, b = (np.frombuffer(data[1:-SLOTS], "<u8") for data in (whole, late))
    assert equal.sum() > PICTURES / 2
    assert (a[equal] == b[equal]).all()


def test_few_words_have_no_signature():
    letters = "abcdefghijklmnopqrstuvwxyzäöüàéñçαβγδεζηθικλμνξοπ"
    assert make_signature([letters[: SHINGLE + MIN_SHINGLES - 2]], [1]) == ""
    assert make_signature([letters[: SHINGLE + MIN_SHINGLES - 1]], [1])
    assert make_signature(["la la la " * 500], [1]) == ""
    assert make_signature(["", ""], [1, 2]) == ""
    assert make_signature(["\ud800 ♪ !" * 500], [1]) == ""


def test_long_texts_are_hashed_in_pieces():
    long = [f"{n} {n * n} {n**3}" for n in range(4000)]
    assert len(make_signature(long, list(range(4000)))) == 2 * SIGNATURE_BYTES


@pytest.mark.parametrize("text", ["xy", "01", "00" * SIGNATURE_BYTES, "01" * (SIGNATURE_BYTES + 1), "é"])
def test_what_is_no_signature(text):
    with pytest.raises(BadInput, match="not a signature"):
        read_signature(text)
