"""Ways to damage a file."""

from __future__ import annotations

import numpy as np

_EXTREMES = [0, 1, 0x7F, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


def mutated(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """`content` after one to four random changes; some take a piece of `other`."""
    for _ in range(rng.integers(1, 5)):
        change = _CHANGES[rng.integers(len(_CHANGES))]
        content = change(content, other, rng) or content[:1]
    return content


def _span(content: bytes, rng: np.random.Generator) -> tuple[int, int]:
    """A stretch of the file, often short, at times in its header."""
    size = int(min(2 ** rng.uniform(0, 14), len(content)))
    last = max(len(content) - size, 0)
    start = int(rng.integers(last + 1) if rng.random() < 0.5 else min(2 ** rng.uniform(0, 10), last))
    return start, start + size


def _truncate(content: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(len(content) + 1))]


def _behead(content: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    return content[_span(content, rng)[1] :]


def _flip_bits(content: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    start, stop = _span(content, rng)
    damaged = bytearray(content)
    for place in rng.integers(start, max(stop, start + 1), size=rng.integers(1, 9)):
        if place < len(damaged):
            damaged[place] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def _randomise(content: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    start, stop = _span(content, rng)
    return content[:start] + rng.bytes(stop - start) + content[stop:]


def _set_extreme(content: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    """A number of 1, 2, 4 or 8 bytes that is the smallest or largest: a size, a count, a time."""
    start, _stop = _span(content, rng)
    width = int(2 ** rng.integers(4))
    value = _EXTREMES[rng.integers(len(_EXTREMES))] % 256**width
    return content[:start] + value.to_bytes(width, "big" if rng.random() < 0.5 else "little") + content[start + width :]


def _remove(content: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    start, stop = _span(content, rng)
    return content[:start] + content[stop:]


def _repeat(content: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    start, stop = _span(content, rng)
    return content[:stop] + content[start:stop] * int(rng.integers(1, 4)) + content[stop:]


def _swap(content: bytes, _: bytes, rng: np.random.Generator) -> bytes:
    (a, b), (c, d) = sorted([_span(content, rng), _span(content, rng)])
    return content if b > c else content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def _splice(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    start, stop = _span(other, rng)
    place = int(rng.integers(len(content) + 1))
    return content[:place] + other[start:stop] + content[place:]


def _join(content: bytes, other: bytes, _: np.random.Generator) -> bytes:
    return content + other


_CHANGES = (_truncate, _behead, _flip_bits, _randomise, _set_extreme, _remove, _repeat, _swap, _splice, _join)
