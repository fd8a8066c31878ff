"""Sources of an example's random text (SPEC 7): a file the user names, or the transcripts of other videos."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from reserve.data.collection import Collection
from reserve.errors import BadInput
from reserve.fs import check_regular_file, replacing

DRAW_CHARACTERS = 6400
"""Minimum length of a drawn text if the source has that much: about the 1280 tokens of a record."""
_MAX_LINE = 2**20
"""Bytes after which a line is broken."""
_PROBED_LINES = 1000
_PROBED_BYTES = 2**20
_MAX_STRAY = 0.005
"""Share of bytes that may be invalid UTF-8. Single ones are dropped; Latin-1 text has more, compressed data a third."""
_MAX_DECOMPRESSED = 2**36
# Small, because one compressed byte can unpack to thousands.
_ZSTD_CHUNK = 2**12


class TextSource(Protocol):
    """Draws random text."""

    def draw(self, rng: np.random.Generator, used: Sequence[tuple[int, int]]) -> str:
        """At least about DRAW_CHARACTERS characters, unless the source has fewer.

        `used` are the (video, segment) pairs of the example that the text is for.
        """


class FileTextSource:
    """Text from a plain text file, or from a JSONL file (`.jsonl`, `.ndjson`) with the key "text".

    Nothing is kept in memory: a draw seeks to a random byte, reads from the next line on and wraps around at the end.
    Lines of a JSONL file without a JSON object that has a text are skipped. Objects can be pickled.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._size = _checked(self.path).st_size
        self._is_jsonl = self.path.suffix.lower() in (".jsonl", ".ndjson")
        self._probe()

    def _probe(self) -> None:
        """Raises BadInput if the beginning of the file does not look like text."""
        found, probed, stray = False, 0, 0
        with self.path.open("rb") as file:
            for line, _ in zip(_lines(file), range(_PROBED_LINES), strict=False):
                found = found or bool(self._text(line))
                probed += len(line)
                stray += len(line) - len(line.decode("utf-8", errors="ignore").encode())
                if found and probed > _PROBED_BYTES:
                    break
        if not found:
            wanted = 'JSON object with a "text"' if self._is_jsonl else "UTF-8 text"
            raise BadInput(f"{self.path}: no {wanted} in its first {_PROBED_LINES} lines")
        if stray > _MAX_STRAY * probed:
            raise BadInput(f"{self.path}: not UTF-8 text: {stray} of its first {probed} bytes are invalid")

    def draw(self, rng: np.random.Generator, used: Sequence[tuple[int, int]]) -> str:
        """Consecutive lines from a random place, white space collapsed. Ignores `used`."""
        start = int(rng.integers(self._size))
        parts: list[str] = []
        length = 0
        with self.path.open("rb") as file:
            for line in _lines_around(file, start):
                if text := self._text(line):
                    parts.append(text)
                    length += len(text) + 1
                if length >= DRAW_CHARACTERS:
                    break
        return " ".join(parts)

    def _text(self, line: bytes) -> str:
        """The text of a line; empty if it has none."""
        if b"\0" in line:
            return ""
        if not self._is_jsonl:
            return " ".join(line.decode("utf-8", errors="ignore").split())
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            return ""
        text = record.get("text") if isinstance(record, dict) else None
        # JSON can escape halves of surrogate pairs, which are not text.
        return " ".join(text.encode("utf-8", errors="ignore").decode("utf-8").split()) if isinstance(text, str) else ""


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(_MAX_LINE):
        yield line


def _lines_around(file: BinaryIO, start: int) -> Iterator[bytes]:
    """Every line once: from the first that begins after byte `start`, then those before it."""
    file.seek(start)
    file.readline(_MAX_LINE)
    turn = file.tell()
    yield from _lines(file)
    file.seek(0)
    while file.tell() < turn and (line := file.readline(_MAX_LINE)):
        yield line


class TranscriptTextSource:
    """The transcripts of the other videos of a collection, never of the example's own.

    If an example shows every video, draws what is said outside the example's segments, and if nothing is, the words of
    the collections that `others` returns. Objects can be pickled if `others` can.
    """

    def __init__(self, collection: Collection, others: Callable[[], Iterable[Collection]] = tuple) -> None:
        self._collection, self._others = collection, others

    def draw(self, rng: np.random.Generator, used: Sequence[tuple[int, int]]) -> str:
        """The transcript of a random video from a random segment on, then those of further videos. Raises BadInput if
        there is no word outside `used`, in no collection."""
        parts: list[str] = []
        length = 0
        for texts in self._texts(rng, used):
            text = " ".join(filter(None, texts[int(rng.integers(len(texts))) :] if not parts else texts))
            if text:
                parts.append(text)
                length += len(text) + 1
            if length >= DRAW_CHARACTERS:
                break
        if not parts:
            raise BadInput("no other video has words for an example's random text; name a text file")
        return " ".join(parts)

    def _texts(self, rng: np.random.Generator, used: Sequence[tuple[int, int]]) -> Iterator[list[str]]:
        """Texts of the other videos' segments in random order; if they have none, of the example's unused segments."""
        videos = {video for video, _ in used}
        others = [
            video for video in rng.permutation(len(self._collection.segment_counts())).tolist() if video not in videos
        ]
        found = False
        for video in others:
            texts = self._collection.texts(video)
            found = found or any(texts)
            if texts:
                yield texts
        if found:
            return
        taken = set(used)
        for video in sorted(videos):
            texts = self._collection.texts(video)
            left = [text for index, text in enumerate(texts) if (video, index) not in taken]
            found = found or any(left)
            yield left or [""]
        if not found:
            for collection in self._others():
                for video in rng.permutation(len(collection.segment_counts())).tolist():
                    yield collection.texts(video) or [""]


def open_text_source(path: str | Path, cache_dir: str | Path) -> FileTextSource:
    """Opens a text or JSONL file, plain or compressed (`.zst`).

    A compressed file is unpacked once into `cache_dir`, since it cannot be read from the middle. Raises BadInput if
    it is broken or unpacks to more than 64 GiB.
    """
    path = Path(path)
    status = _checked(path)
    if path.suffix.lower() != ".zst":
        return FileTextSource(path)
    unpacked = Path(cache_dir) / f"{status.st_size}-{status.st_mtime_ns}-{path.stem}"
    if not unpacked.exists():
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        _unpack(path, unpacked)
    try:
        return FileTextSource(unpacked)
    except BadInput as error:
        raise BadInput(f"{path}, unpacked to {error}") from error


def _checked(path: Path) -> os.stat_result:
    """Stat of a readable regular file. Unlike a video, the text is named only here: so its errors name it."""
    try:
        return check_regular_file(path)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error


def _unpack(packed: Path, target: Path) -> None:
    try:
        import zstandard
    except ImportError as error:
        raise ImportError("reading .zst files needs zstandard: pip install 'merlot-reserve[text]'") from error
    try:
        with replacing(target) as temporary, packed.open("rb") as source, temporary.open("wb") as sink:
            for part in _decompressed(zstandard.ZstdDecompressor(), source):
                sink.write(part)
                if sink.tell() > _MAX_DECOMPRESSED:
                    raise BadInput(f"{packed}: unpacks to more than {_MAX_DECOMPRESSED} bytes")
    except zstandard.ZstdError as error:
        raise BadInput(f"{packed}: not a complete zstd file: {error}") from error


def _decompressed(decompressor: Any, source: BinaryIO) -> Iterator[bytes]:
    """Content of all frames of a zstd file. The library's own readers accept a truncated file as complete."""
    frame = None
    while chunk := source.read(_ZSTD_CHUNK):
        while chunk:
            frame = frame or decompressor.decompressobj()
            yield frame.decompress(chunk)
            chunk, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    if frame is not None:
        raise BadInput(f"{source.name}: a truncated zstd file")
