"""Names and framing of a set of shards on disk (docs/shards.md)."""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from reserve.errors import BadInput

FORMAT = "reserve-shards-1"
SETTINGS = "settings.json"
MANIFEST = "manifest.json"
WORK = "work"
"""Folder of what is not finished."""
BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)
"""What a tar ends with."""

Sound = Literal["log_mel", "flac"]
PICTURE, TEXT = "jpg", "json"
SOUND_SUFFIXES: dict[Sound, str] = {"log_mel": "npy", "flac": "flac"}
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}", re.ASCII)
_SHARD = re.compile(r"shard-(\d{5,})")
MAX_SEGMENT = 99_999
"""Segments of a video are numbered in five digits; two hours have 1440."""


class Sample(NamedTuple):
    """A segment as the three files of a WebDataset sample: a JPEG, a log-mel spectrogram (.npy) or sound (.flac), and
    JSON."""

    picture: bytes
    sound: bytes
    text: bytes


def check_file_name(name: str) -> str:
    """The name of a file of a set, which may come from a manifest. Raises BadInput if it could be outside the set's
    folder."""
    if not _FILE.fullmatch(name):
        raise BadInput(f"{name!r:.80} is not the name of a file of a set of shards")
    return name


def shard_of(video_id: str, num_shards: int) -> int:
    """The shard that a video belongs to, whatever the other videos are."""
    return int(_digest(video_id), 16) % num_shards


def shard_name(number: int) -> str:
    return f"shard-{number:05d}"


def shard_number(name: str) -> int | None:
    """The number in a shard's name without suffix; None if it is no such name."""
    match = _SHARD.fullmatch(name)
    return int(match[1]) if match and shard_name(int(match[1])) == name else None


def sample_key(video_id: str, segment: int) -> str:
    """The name of a sample's files without suffix. It has no dot, where WebDataset would cut it."""
    return f"{_digest(video_id)[:16]}-{segment:05d}"


def _digest(video_id: str) -> str:
    return hashlib.sha256(video_id.encode("utf-8", errors="surrogatepass")).hexdigest()


def member_header(name: str, size: int) -> bytes:
    """The tar header of a file: no time, no owner, so that equal contents make equal shards."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT)


def padding(size: int) -> int:
    """Bytes that fill up a file of `size` bytes to whole blocks."""
    return -size % BLOCK


def member_starts(sizes: Sequence[int]) -> Iterator[int]:
    """Where the contents of a sample's files begin, counted from the sample's first header."""
    start = BLOCK
    for size in sizes:
        yield start
        start += size + padding(size) + BLOCK


def sample_length(sizes: Sequence[int]) -> int:
    """Bytes that a sample takes in a tar."""
    return sum(BLOCK + size + padding(size) for size in sizes)
