"""The signature of a video: a short text by which its copies are found (duplicates.py).

It has a MinHash (Broder 1997) of the words and, for some of its slots, the perceptual hash of a frame. The smallest
shingle of a slot is a phrase of the video, and its frame is that of the segment in which the phrase is first said. So
frames of two copies are compared at the same spoken phrase, wherever the copies begin and whichever times their
segments got.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np

from reserve.errors import BadInput

SHINGLE = 16
"""Letters and digits of a shingle, about three words. Letters rather than words, so that scripts without spaces and
other spellings of compounds work too."""
MIN_SHINGLES = 32
"""Different shingles below which words say too little to call anything a duplicate."""
SLOTS = 64
"""Values of the MinHash, a byte each."""
PICTURES = 20
"""Slots, the first ones, that have a frame."""
SIGNATURE_BYTES = 1 + 8 * PICTURES + SLOTS
_VERSION = 1
# Shingles that are hashed at a time.
_CHUNK = 1 << 14
_BASE = np.uint64(0x9E3779B97F4A7C15)


def make_signature(words: Sequence[str], pictures: Sequence[int]) -> str:
    """The signature of a video in hexadecimal, from the `words` of each segment, joined, and the picture_hash of each.

    "" if the words have fewer than MIN_SHINGLES different shingles.
    """
    letters, segments = _letters(words)
    shingles, first = np.unique(_shingle_hashes(letters), return_index=True)
    if len(shingles) < MIN_SHINGLES:
        return ""
    smallest = np.full(SLOTS, np.iinfo(np.uint64).max)
    place = np.zeros(SLOTS, dtype=np.int64)
    for start in range(0, len(shingles), _CHUNK):
        values = shingles[start : start + _CHUNK, None] * _FACTORS + _OFFSETS
        best = values.argmin(axis=0)
        least = values[best, np.arange(SLOTS)]
        place = np.where(least < smallest, first[start + best], place)
        smallest = np.minimum(smallest, least)
    frames = np.array([pictures[segments[at]] for at in place[:PICTURES]], dtype="<u8")
    return (bytes([_VERSION]) + frames.tobytes() + _mix(smallest).astype(np.uint8).tobytes()).hex()


def read_signature(text: str) -> bytes:
    """The bytes of a signature: its version, uint64 [PICTURES] little endian, uint8 [SLOTS]. Raises BadInput."""
    try:
        data = bytes.fromhex(text)
    except ValueError as error:
        raise BadInput(f"not a signature of a video: {text!r:.80}") from error
    if len(data) != SIGNATURE_BYTES or data[0] != _VERSION:
        raise BadInput(f"not a signature of this version: {text!r:.80}")
    return data


def _letters(words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The letters and digits of all segments without case, uint64 [n], and the segment of each, int64 [n]."""
    parts = [
        np.frombuffer(
            "".join(filter(str.isalnum, unicodedata.normalize("NFKC", part).casefold())).encode("utf-32-le"), "<u4"
        )
        for part in words
    ]
    segments = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return np.concatenate(parts).astype(np.uint64), segments


def _shingle_hashes(letters: np.ndarray) -> np.ndarray:
    count = max(len(letters) - SHINGLE + 1, 0)
    total = np.zeros(count, dtype=np.uint64)
    for place in range(SHINGLE):
        total = total * _BASE + letters[place : place + count]
    return _mix(total)


def _mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64: every bit depends on every other."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


_FACTORS = _mix(np.arange(1, SLOTS + 1, dtype=np.uint64) * _BASE) | np.uint64(1)
_OFFSETS = _mix(np.arange(SLOTS + 1, 2 * SLOTS + 1, dtype=np.uint64) * _BASE)
