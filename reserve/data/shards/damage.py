"""Which part of a sample is damaged, where all that is known is that its checksum is wrong."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from reserve.data.images import decode_jpeg
from reserve.data.shards.layout import (
    BLOCK,
    PICTURE,
    SOUND_SUFFIXES,
    TEXT,
    Sound,
    member_header,
    member_starts,
)
from reserve.errors import BadInput

_KINDS = ("picture", "sound", "text")
# A search of a megabyte takes a third of a second.
_MOST_SEARCHED = 1 << 20


def damaged_part(data: bytes, key: str, sizes: Sequence[int], sound: Sound, crc: int) -> str:
    """Names the damaged part of a sample: header, picture, sound, text or padding.

    `data` are its bytes with headers, of which at least one is wrong; `crc` is the checksum that they should have. A
    single wrong byte is found exactly, since it decides how the checksum changes. Several are found in headers, in
    padding, and where they keep a file from being read.
    """
    parts = list(_parts(key, sizes, sound))
    place = wrong_byte(zlib.crc32(data) ^ crc, len(data))
    if place is not None:
        name, start = next((name, start) for name, start, stop in parts if start <= place < stop)
        return f"the {name}, at its byte {place - start}"
    found = [name for name, start, stop in parts if _is_damaged(name, data[start:stop], key, sizes, sound)]
    return " and ".join(f"the {name}" for name in found) if found else "the picture, sound or text"


def wrong_byte(difference: int, length: int) -> int | None:
    """Where the one wrong byte of `length` bytes lies, from the bits in which their CRC-32 differs from the right one.

    None if no single byte explains the difference, or the bytes are too many to search.
    """
    if length > _MOST_SEARCHED:
        return None
    # Without its constants a CRC is linear: the difference is the CRC of the error alone, a byte with zeros behind.
    for place in range(length - 1, -1, -1):
        if difference in _OF_BYTE:
            return place
        # One zero fewer behind it.
        last = _BY_TOP[difference >> 24]
        difference = ((difference ^ _OF_VALUE[last]) << 8 & 0xFFFFFFFF) | last
    return None


def _parts(key: str, sizes: Sequence[int], sound: Sound) -> Iterator[tuple[str, int, int]]:
    """Name, start and stop of every part of a sample."""
    for suffix, kind, start, size in zip(_suffixes(sound), _KINDS, member_starts(sizes), sizes, strict=True):
        yield f"header of {key}.{suffix}", start - BLOCK, start
        yield kind, start, start + size
        yield f"padding of {key}.{suffix}", start + size, start + size + -size % BLOCK


def _is_damaged(name: str, data: bytes, key: str, sizes: Sequence[int], sound: Sound) -> bool:
    """Whether a part of a sample is surely damaged."""
    if name.startswith("header"):
        member = name.removeprefix("header of ")
        size = sizes[_suffixes(sound).index(member.removeprefix(f"{key}."))]
        return data != member_header(member, size)
    if name.startswith("padding"):
        return any(data)
    try:
        if name == "picture":
            decode_jpeg(data)
        elif name == "text":
            json.loads(data)
        elif sound == "log_mel":
            return not np.isfinite(np.lib.format.read_array(io.BytesIO(data), max_header_size=1024)).all()
        else:
            import soundfile

            soundfile.read(io.BytesIO(data))
    except (BadInput, ValueError, EOFError, OSError, TypeError, RuntimeError, RecursionError):
        return True
    return False


def _suffixes(sound: Sound) -> tuple[str, str, str]:
    return PICTURE, SOUND_SUFFIXES[sound], TEXT


_OF_VALUE = [zlib.crc32(bytes([value])) ^ zlib.crc32(b"\0") for value in range(256)]
_OF_BYTE = frozenset(_OF_VALUE[1:])
_BY_TOP = {remainder >> 24: value for value, remainder in enumerate(_OF_VALUE)}
