from __future__ import annotations

import numpy as np
import pytest

from reserve.batch.vocabulary import MASK, PAD
from reserve.tasks.choices import mask_rows, masked_sequence


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [([], [MASK, PAD, PAD]), ([9], [9, MASK, PAD]), ([9, 8], [9, 8, MASK]), ([9, 8, 7], [9, 8, MASK])],
)
def test_a_sequence_ends_in_mask(tokens, expected):
    sequence = masked_sequence(tokens, 3)
    assert sequence.dtype == np.int32
    assert sequence.tolist() == expected


def test_the_first_mask_of_each_sequence_is_found():
    ids = np.array([[9, MASK, 8, MASK], [MASK, 9, 8, PAD]])
    assert mask_rows(ids, np.array([[10, 11, 12, 13], [14, 15, 16, -1]])).tolist() == [11, 14]


def test_a_sequence_without_mask_is_an_error():
    with pytest.raises(ValueError, match="sequence 1 has no MASK"):
        mask_rows(np.array([[MASK], [9]]), np.zeros((2, 1)))
