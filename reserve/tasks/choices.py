"""Sequences that end in a MASK, where the head reads how well a choice fits (SPEC 10.1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reserve.batch.vocabulary import MASK, PAD


def masked_sequence(tokens: Sequence[int], length: int) -> np.ndarray:
    """The tokens, cut to `length` - 1, then MASK, then PAD: int32 [length]."""
    kept = list(tokens[: length - 1])
    return np.array([*kept, MASK] + [PAD] * (length - 1 - len(kept)), dtype=np.int32)


def mask_rows(ids: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The packed row of the first MASK of each sequence: int64 [sequences].

    `ids` [sequences, length] are the tokens, `rows` their packed rows. Raises ValueError for a sequence without MASK.
    """
    found = ids == MASK
    if not found.any(1).all():
        raise ValueError(f"sequence {int(np.flatnonzero(~found.any(1))[0])} has no MASK")
    return rows[np.arange(len(ids)), found.argmax(1)]
