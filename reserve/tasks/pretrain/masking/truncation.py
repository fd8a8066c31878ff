"""Truncates sequences that are too long without losing what must be predicted (SPEC 7)."""

from __future__ import annotations

import numpy as np

from reserve.batch.vocabulary import AUDIOSPAN, MASK, MASKAUDIO
from reserve.tasks.pretrain.masking.rows import AUDIO_PTR, ID


def truncate_group(
    tokens: np.ndarray, length: int, subsegment_scores: np.ndarray, token_scores: np.ndarray
) -> np.ndarray:
    """Truncates the tokens [n, 3] of a segment group to at most `length`.

    Tokens are dropped from both ends: on the left up to the first MASK, MASKAUDIO or AUDIOSPAN, on the right down to
    the last MASK or MASKAUDIO. The left end thus never splits a subsegment's AUDIOSPANs, and the k-th AUDIOSPAN remains
    pooled token k mod 6. If that is not enough, MASK has priority, and other tokens are kept by subsegment in
    descending order of `subsegment_scores` [N], and within a subsegment of `token_scores` [n].
    """
    excess = len(tokens) - length
    if excess <= 0:
        return tokens
    ids = tokens[:, ID]
    is_mask = (ids == MASK) | (ids == MASKAUDIO)
    masks = np.flatnonzero(is_mask)
    anchors = np.flatnonzero(is_mask | (ids == AUDIOSPAN))
    spare_left = anchors[0] if len(anchors) else len(tokens)
    spare_right = len(tokens) - 1 - (masks[-1] if len(masks) else 0)

    left = min(excess // 2, spare_left)
    right = min(excess - left, spare_right)
    left = min(excess - right, spare_left)
    kept = np.arange(left, len(tokens) - right)
    if len(kept) > length:
        scores = subsegment_scores[tokens[kept, AUDIO_PTR]]
        order = np.lexsort((-token_scores[kept], -scores, ids[kept] != MASK))
        kept = np.sort(kept[order[:length]])
    return tokens[kept]


def cut_right(tokens: np.ndarray, length: int, keep_id: int) -> np.ndarray:
    """Truncates tokens [n, 3] on the right to `length`, but skips tokens whose id is `keep_id`.

    This differs from a plain cut only if that would lose a `keep_id`.
    """
    excess = len(tokens) - length
    if excess <= 0:
        return tokens
    droppable = np.flatnonzero(tokens[:, ID] != keep_id)
    return np.delete(tokens, droppable[-excess:], axis=0)[:length]
