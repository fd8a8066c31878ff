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
5 s apart: the segments of each video start at a random time, so a cut or a movement lies between many of them."""
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

    Raises BadInput for a signature that is none. docs/twenty_million.md has its time and memory.
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
    order = np.array(sorted(range(len(names)), key=lambda video: (-counts[video], names[video])))
    data = np.frombuffer(packed, dtype=np.uint8).reshape(-1, SIGNATURE_BYTES)
    return {names[order[copy]]: names[order[kept]] for copy, kept in _copies(data, order).items()}


def _copies(data: np.ndarray, order: np.ndarray) -> dict[int, int]:
    """Copies among signatures uint8 [n, SIGNATURE_BYTES], where `order` int [n] has the preferred ones first: the place
    in it of each copy to that of the kept one."""
    shared, buckets = _shared_buckets(data[:, -SLOTS:][order])
    kept_of: dict[int, list[int]] = {}
    copies: dict[int, int] = {}
    for place, keys in zip(shared.tolist(), buckets, strict=True):
        own = keys[keys >= 0].tolist()
        others = sorted({other for key in own for other in kept_of.get(key, ())})
        match = _first_match(data[order[place]], data[order[others]]) if others else None
        if match is not None:
            copies[place] = others[match]
            continue
        for key in own:
            if len(members := kept_of.setdefault(key, [])) < MOST_COMPARED:
                members.append(place)
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


def _first_match(own: np.ndarray, others: np.ndarray) -> int | None:
    """The first of the signatures `others` uint8 [m, SIGNATURE_BYTES] with the words and pictures of `own`."""
    equal = others[:, -SLOTS:] == own[-SLOTS:]
    at_phrase = equal[:, :PICTURES]
    likeness = np.clip(1 - _differing_bits(_frames(others), _frames(own)) / UNLIKE_BITS, 0, None) * at_phrase
    matches = equal.mean(axis=1) >= SAME_WORDS
    matches &= likeness.sum(axis=1) >= SAME_PICTURES * np.maximum(at_phrase.sum(axis=1), 1)
    return int(matches.argmax()) if matches.any() else None


def _frames(signatures: np.ndarray) -> np.ndarray:
    """The hashes of frames of signatures: uint64 [..., PICTURES]."""
    return np.ascontiguousarray(signatures[..., 1:-SLOTS]).view("<u8")


def _differing_bits(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How many bits differ between uint64 numbers, element by element."""
    differing = np.bitwise_xor(a, b)
    return _BITS[differing.view(np.uint8)].reshape(*differing.shape, 8).sum(axis=-1)


_BITS = np.array([value.bit_count() for value in range(256)], dtype=np.uint8)
