"""Copies among the videos of a data set, by their signatures: the same words and the same pictures.

Bands of a signature's MinHash (Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, 3.4) say which videos to
compare. Two passes keep it linear: sorted arrays find the few videos that share a band with another, and only those are
compared, each with the videos kept before it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from reserve.data.filters.signature import PICTURES, SIGNATURE_BYTES, SLOTS, read_signature

SAME_WORDS = 0.5
"""Least share of phrases (estimated Jaccard similarity) that copies have in common."""
UNLIKE_BITS = 24
"""Bits that differ between two frames that have nothing in common. Fewer make them alike by 1 - bits / 24."""
SAME_PICTURES = 0.25
"""Least mean likeness of the frames at the phrases in common. It is far below 1 since frames of two copies are up to
5 s apart: the segments of each video start at a random time, so a cut or a movement lies between many of them.

Measured on 700 demo videos, whose narration follows templates and whose places look the same in all of them: none of
the 244,650 pairs matches. Of 8 copies of each of 24 videos (re-encoded at CRF 36, at half and 1.5 times the size,
darkened, cropped by 5 and by 10 %, without the first 1 and 12 s) all 192 match their original. Had all these videos the
same words, 0.06 % of the pairs would match."""
MOST_COMPARED = 1000
"""Kept videos of one bucket, the first ones, with which another is compared. It bounds the time where very many videos
have the same words and different pictures."""
_ROWS = 4
_BANDS = SLOTS // _ROWS


def find_duplicates(videos: Iterable[tuple[str, int, str]]) -> dict[str, str]:
    """The videos to drop as duplicates, each with the kept one that it is a copy of.

    Of copies, the video with the most segments is kept, or the one with the smallest id of these. The result does not
    depend on the order of `videos`. Every dropped video matches the kept one itself: copies do not form chains.

    Args:
        videos: (video_id, segments, signature) of every video, read once. An empty signature matches nothing.

    Raises BadInput for a signature that is none. A million videos take 20 s of one core and 1 GB of memory.
    """
    names: list[str] = []
    counts: list[int] = []
    packed = bytearray()
    for name, segments, text in videos:
        if text:
            names.append(name)
            counts.append(segments)
            packed += read_signature(text)
    if not names:
        return {}
    rank = np.array(sorted(range(len(names)), key=lambda video: (-counts[video], names[video])))
    data = np.frombuffer(packed, dtype=np.uint8).reshape(-1, SIGNATURE_BYTES)[rank]
    return {names[rank[copy]]: names[rank[kept]] for copy, kept in _copies(data).items()}


def _copies(data: np.ndarray) -> dict[int, int]:
    """Copies among signatures uint8 [n, SIGNATURE_BYTES] in the order of preference: copy to the kept one, by row."""
    words = data[:, -SLOTS:]
    frames = data[:, 1:-SLOTS].copy().view("<u8").reshape(-1, PICTURES)
    shared, buckets = _shared_buckets(words)
    kept_of: dict[int, list[int]] = {}
    copies: dict[int, int] = {}
    for row, keys in zip(shared.tolist(), buckets, strict=True):
        own = keys[keys >= 0].tolist()
        others = sorted({other for key in own for other in kept_of.get(key, ())})
        match = _first_match(words, frames, row, others)
        if match is not None:
            copies[row] = match
            continue
        for key in own:
            if len(members := kept_of.setdefault(key, [])) < MOST_COMPARED:
                members.append(row)
    return copies


def _shared_buckets(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows that have a band in common with another, ascending int64 [m], and the number of the bucket that each is
    in by each band, int64 [m, bands]; -1 for a band of its own."""
    bands = np.ascontiguousarray(words).view("<u4")
    is_shared = np.zeros(len(words), dtype=bool)
    masks = []
    for band in range(_BANDS):
        order = np.argsort(bands[:, band], kind="stable")
        equal = bands[order[1:], band] == bands[order[:-1], band]
        mask = np.zeros(len(words), dtype=bool)
        mask[order[1:]] = equal
        mask[order[:-1]] |= equal
        masks.append(np.packbits(mask))
        is_shared |= mask
    shared = np.flatnonzero(is_shared)
    buckets = np.full((len(shared), _BANDS), -1, dtype=np.int64)
    for band, packed in enumerate(masks):
        inside = np.unpackbits(packed, count=len(words)).astype(bool)[shared]
        buckets[inside, band] = bands[shared[inside], band].astype(np.int64) * _BANDS + band
    return shared, buckets


def _first_match(words: np.ndarray, frames: np.ndarray, row: int, others: list[int]) -> int | None:
    """The first of the rows `others` whose words and pictures are those of `row`."""
    if not others:
        return None
    equal = words[others] == words[row]
    enough = equal.mean(axis=1) >= SAME_WORDS
    at_phrase = equal[:, :PICTURES]
    likeness = np.clip(1 - _differing_bits(frames[others], frames[row]) / UNLIKE_BITS, 0, None) * at_phrase
    enough &= likeness.sum(axis=1) >= SAME_PICTURES * np.maximum(at_phrase.sum(axis=1), 1)
    return others[int(enough.argmax())] if enough.any() else None


def _differing_bits(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How many bits differ between uint64 numbers, element by element."""
    differing = np.bitwise_xor(a, b)
    return _BITS[differing.view(np.uint8)].reshape(*differing.shape, 8).sum(axis=-1)


_BITS = np.array([value.bit_count() for value in range(256)], dtype=np.uint8)
