"""The index of a shard: where each sample lies in the tar, its checksum, and the words of each segment as plain text.

A safetensors file. Tensors: `video_first` uint32 [videos + 1], the first segment of each video; `sample_start` uint64
[segments + 1], where samples begin in the tar; `sample_crc` uint32 [segments], CRC-32 of a sample with its headers;
`member_sizes` uint32 [segments, 3], bytes of picture, sound and JSON; `id_bytes`, `id_offsets` uint64 [videos + 1], the
ids; `text_bytes`, `text_offsets` uint64 [segments + 1], the words of each segment joined by spaces; `text_crc` uint32
[videos], CRC-32 of a video's words. The header holds the name of the format, the kind of sound and the CRC-32 of all
tensors but `text_bytes`.
"""

from __future__ import annotations

import json
import os
import weakref
import zlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from reserve.data.shards.layout import BLOCK, END, SOUND_SUFFIXES, Sound, sample_length
from reserve.errors import BadInput, EnvironmentFailure
from reserve.fs import is_environment_failure

FORMAT = "reserve-shard-index-1"
_TABLES = {
    "video_first": ("U32", 1),
    "sample_start": ("U64", 1),
    "sample_crc": ("U32", 1),
    "member_sizes": ("U32", 2),
    "id_bytes": ("U8", 1),
    "id_offsets": ("U64", 1),
    "text_offsets": ("U64", 1),
    "text_crc": ("U32", 1),
}
_TEXT = "text_bytes"
_HEADER = "index"


class IndexBuilder:
    """Collects a shard's index while the tar is written."""

    def __init__(self, sound: Sound) -> None:
        self.sound = sound
        self._ids: list[bytes] = []
        self._texts: list[bytes] = []
        self._first: list[int] = [0]
        self._start: list[int] = [0]
        self._crc: list[int] = []
        self._sizes: list[tuple[int, int, int]] = []

    def add(self, sizes: tuple[int, int, int], crc: int, words: str) -> None:
        """Adds the next sample of the current video."""
        self._start.append(self._start[-1] + sample_length(sizes))
        self._crc.append(crc)
        self._sizes.append(sizes)
        self._texts.append(words.encode("utf-8", errors="surrogatepass"))

    def end_video(self, video_id: str) -> None:
        """Says that the samples since the last video were those of `video_id`."""
        self._ids.append(video_id.encode("utf-8", errors="surrogatepass"))
        self._first.append(len(self._crc))

    def data(self) -> bytes:
        """The index as a file."""
        from safetensors.numpy import save

        first = self._first
        tables: dict[str, np.ndarray] = {
            "video_first": np.array(first, np.uint32),
            "sample_start": np.array(self._start, np.uint64),
            "sample_crc": np.array(self._crc, np.uint32),
            "member_sizes": np.array(self._sizes, np.uint32).reshape(-1, 3),
            **_joined("id", self._ids),
            **_joined("text", self._texts),
            "text_crc": np.array([zlib.crc32(b"".join(self._texts[a:b])) for a, b in pairwise(first)], np.uint32),
        }
        header = {"format": FORMAT, "sound": self.sound, "tables_crc": _tables_crc(tables)}
        # As one entry: safetensors writes several in any order, and equal videos must make equal bytes.
        return save(tables, metadata={_HEADER: json.dumps(header)})


def _joined(name: str, parts: Sequence[bytes]) -> dict[str, np.ndarray]:
    return {
        f"{name}_bytes": np.frombuffer(b"".join(parts), np.uint8),
        f"{name}_offsets": np.cumsum([0, *map(len, parts)], dtype=np.uint64),
    }


def _tables_crc(tables: dict[str, np.ndarray]) -> int:
    crc = 0
    for name in _TABLES:
        crc = zlib.crc32(tables[name].tobytes(), crc)
    return crc


class ShardIndex:
    """An index, its tables in memory and its texts on disk. Its file stays open, so that it may be removed.

    Texts are not read through a memory map: a file that is cut while it is mapped kills the process.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file. Raises BadInput, which does not name it, if it is damaged."""
        from safetensors import SafetensorError, safe_open

        try:
            self._descriptor = os.open(path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._descriptor)
            with safe_open(path, framework="numpy") as file:
                header = _header(file.metadata() or {})
                _check_layout(file)
                tables = {name: file.get_tensor(name) for name in _TABLES}
                text_size = file.get_slice(_TEXT).get_shape()[0]
            self._text_start = _text_start(self._descriptor)
        except (SafetensorError, OSError) as error:
            raise _failure("not the index of a shard", error) from error
        if header.get("tables_crc") != _tables_crc(tables):
            raise BadInput("a damaged index: its tables do not have the checksum that it names")
        self.sound: Sound = header["sound"]
        self.video_first, self.sample_start = tables["video_first"], tables["sample_start"]
        self.sample_crc, self.member_sizes = tables["sample_crc"], tables["member_sizes"]
        self._id_bytes, self._id_offsets = tables["id_bytes"], tables["id_offsets"]
        self._text_offsets, self._text_crc = tables["text_offsets"], tables["text_crc"]
        self._check_tables(text_size)

    @property
    def num_videos(self) -> int:
        return len(self.video_first) - 1

    @property
    def num_segments(self) -> int:
        return len(self.sample_crc)

    @property
    def tar_bytes(self) -> int:
        """Bytes of the tar."""
        return int(self.sample_start[-1]) + len(END)

    def segment_counts(self) -> np.ndarray:
        """Segments of each video, int64 [videos]."""
        return np.diff(self.video_first.astype(np.int64))

    def video_id(self, video: int) -> str:
        first, stop = (int(place) for place in self._id_offsets[video : video + 2])
        return _decoded(bytes(self._id_bytes[first:stop]))

    def texts(self, video: int) -> list[str]:
        """The words of each segment of a video, joined by spaces. Raises BadInput if they are damaged."""
        first, stop = (int(place) for place in self.video_first[video : video + 2])
        offsets = self._text_offsets[first : stop + 1].astype(np.int64)
        try:
            data = os.pread(self._descriptor, int(offsets[-1] - offsets[0]), self._text_start + int(offsets[0]))
        except OSError as error:
            raise _failure("its words cannot be read", error) from error
        if zlib.crc32(data) != int(self._text_crc[video]):
            raise BadInput("its words in the index do not have the checksum that it names")
        offsets -= offsets[0]
        return [_decoded(data[a:b]) for a, b in pairwise(offsets)]

    def _check_tables(self, text_size: int) -> None:
        """Raises BadInput unless the tables fit each other, so that nothing outside the tar is ever read."""
        videos, segments = self.num_videos, self.num_segments
        starts = self.sample_start.astype(np.int64)
        lengths = self.member_sizes.astype(np.int64)
        fits = (
            videos >= 1
            and self.member_sizes.shape == (segments, 3)
            and len(starts) == len(self._text_offsets) == segments + 1
            and len(self._id_offsets) == videos + 1 == len(self._text_crc) + 1
            and _divides(self.video_first, segments, least=1)
            and _divides(self._id_offsets, len(self._id_bytes), least=1)
            and _divides(self._text_offsets, text_size, least=0)
            and starts[0] == 0
            and (np.diff(starts) == (BLOCK + lengths + -lengths % BLOCK).sum(-1)).all()
        )
        if not fits:
            raise BadInput("a damaged index: its tables do not fit each other")
        for video in range(videos):
            self.video_id(video)


def _check_layout(file: Any) -> None:
    found = set(file.keys())
    if found != {*_TABLES, _TEXT}:
        raise BadInput(f"not the index of a shard: it holds {sorted(found)!r:.200}")
    for name, (dtype, axes) in {**_TABLES, _TEXT: ("U8", 1)}.items():
        part = file.get_slice(name)
        if part.get_dtype() != dtype or len(part.get_shape()) != axes:
            raise BadInput(f"not the index of a shard: {name} is {part.get_dtype()} of shape {part.get_shape()}")


def _text_start(descriptor: int) -> int:
    """Where the texts begin in an index that safetensors has opened: after a length of 8 bytes and a header in JSON."""
    length = int.from_bytes(os.pread(descriptor, 8, 0), "little")
    try:
        return 8 + length + int(json.loads(os.pread(descriptor, length, 8))[_TEXT]["data_offsets"][0])
    except ValueError as error:  # it was cut since
        raise BadInput("not the index of a shard: it is being written") from error


def _failure(what: str, error: Exception) -> Exception:
    return EnvironmentFailure(str(error)) if is_environment_failure(error) else BadInput(f"{what}: {error}")


def _decoded(data: bytes) -> str:
    """Text of any characters, also such as no encoding has: transcripts in JSON and names of files can hold them."""
    try:
        return data.decode("utf-8", errors="surrogatepass")
    except UnicodeDecodeError as error:
        raise BadInput(f"a damaged index: its words or ids are not text ({error})") from error


def _header(metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        header = json.loads(metadata.get(_HEADER, "null"))
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise BadInput(f"not the index of a shard: its format is not {FORMAT!r}")
    if header.get("sound") not in list(SOUND_SUFFIXES):  # a list, since what JSON holds may not be hashable
        raise BadInput(f"not the index of a shard: its sound is {header.get('sound')!r:.80}")
    return header


def _divides(offsets: np.ndarray, size: int, *, least: int) -> bool:
    """Whether offsets divide `size` things into parts of at least `least`."""
    whole = offsets.astype(np.int64)
    return bool(len(whole) and whole[0] == 0 and whole[-1] == size and (np.diff(whole) >= least).all())
