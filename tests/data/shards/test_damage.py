"""Where in a sample the damage is."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from reserve.data.images import encode_jpeg
from reserve.data.shards.damage import damaged_part, wrong_byte
from reserve.data.shards.layout import BLOCK, PICTURE, SOUND_SUFFIXES, TEXT, member_header, member_starts, padding
from reserve.data.shards.pieces import _npy

KEY = "0123456789abcdef-00007"
PICTURE_BYTES = encode_jpeg(np.random.default_rng(0).integers(256, size=(36, 64, 3), dtype=np.uint8))
SOUND_BYTES = _npy(np.ones((188, 64), np.float16))
TEXT_BYTES = b'{"words": [["hello", 0.1, 0.3]], "segment": 7}'
FILES = (PICTURE_BYTES, SOUND_BYTES, TEXT_BYTES)
SIZES = tuple(map(len, FILES))
WHOLE = b"".join(
    member_header(f"{KEY}.{suffix}", len(data)) + data + bytes(padding(len(data)))
    for suffix, data in zip((PICTURE, SOUND_SUFFIXES["log_mel"], TEXT), FILES, strict=True)
)
STARTS = list(member_starts(SIZES))


def part_of(damaged):
    return damaged_part(bytes(damaged), KEY, SIZES, "log_mel", zlib.crc32(WHOLE))


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (0, f"the header of {KEY}.jpg, at its byte 0"),
        (STARTS[0], "the picture, at its byte 0"),
        (STARTS[0] + 700, "the picture, at its byte 700"),
        (STARTS[0] + SIZES[0], f"the padding of {KEY}.jpg, at its byte 0"),
        (STARTS[1] - 1, f"the header of {KEY}.npy, at its byte {BLOCK - 1}"),
        (STARTS[1] + 20_000, "the sound, at its byte 20000"),
        (STARTS[2] + 3, "the text, at its byte 3"),
        (len(WHOLE) - 1, f"the padding of {KEY}.json, at its byte {padding(SIZES[2]) - 1}"),
    ],
)
@pytest.mark.parametrize("error", [1, 128, 255])
def test_a_single_wrong_byte_is_found_exactly(place, expected, error):
    damaged = bytearray(WHOLE)
    damaged[place] ^= error
    assert part_of(damaged) == expected


def test_any_place_of_any_error_is_found():
    rng = np.random.default_rng(0)
    whole = rng.bytes(3000)
    for _ in range(300):
        place, error = int(rng.integers(len(whole))), int(rng.integers(1, 256))
        damaged = bytearray(whole)
        damaged[place] ^= error
        assert wrong_byte(zlib.crc32(damaged) ^ zlib.crc32(whole), len(whole)) == place


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (100, 200, f"the header of {KEY}.jpg"),
        (STARTS[0], STARTS[0] + 60, "the picture"),
        (STARTS[1], STARTS[1] + 60, "the sound"),
        (STARTS[2], STARTS[2] + 9, "the text"),
        (
            STARTS[0],
            STARTS[1] + 60,
            f"the picture and the padding of {KEY}.jpg and the header of {KEY}.npy and the sound",
        ),
        (STARTS[1] + 5000, STARTS[1] + 5020, "the picture, sound or text"),
    ],
)
def test_many_wrong_bytes_are_found_by_what_they_break(start, stop, expected):
    damaged = bytearray(WHOLE)
    damaged[start:stop] = bytes(byte % 7 + 1 for byte in range(stop - start))
    assert part_of(damaged) == expected


def test_long_stretches_are_not_searched():
    assert wrong_byte(12345, 1 << 21) is None
