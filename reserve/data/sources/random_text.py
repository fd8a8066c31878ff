"""Where the random text of an example comes from (SPEC 7): a file the user names, or what other videos say."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from reserve.data.store import load_texts
from reserve.errors import BadInput
from reserve.fs import check_regular_file, replacing

DRAW_CHARACTERS = 6400
"""Least length of a drawn text where there is that much: about the 1280 tokens of a record."""
_MAX_LINE = 2**20
"""Bytes of a line that are looked at; what follows on the line counts as the next one."""
_PROBED_LINES = 1000
_PROBED_BYTES = 2**20
_MAX_STRAY = 0.005
"""Share of bytes that may be no UTF-8: single ones are dropped, but Latin-1 has more, compressed data a third."""
_MAX_DECOMPRESSED = 2**36
# Small, since one compressed byte can unpack to thousands.
_ZSTD_CHUNK = 2**12


class TextSource(Protocol):
    """Draws random text."""

    def draw(self, rng: np.random.Generator, used: Sequence[tuple[int, int]]) -> str:
        """About DRAW_CHARACTERS characters or more; less only where there is no more.

        `used` are the (video, segment) pairs of the example that the text is for.
        """


class FileTextSource:
    """Text from a plain text file, or from a JSONL file (`.jsonl`, `.ndjson`) with the key "text".

    Nothing is held in memory: a draw jumps to a random byte and reads on from the next line, past the end from the
    start. Lines of a JSONL file that are no JSON object with a text are passed over. Objects can be pickled.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._size = _checked(self.path).st_size
        self._is_jsonl = self.path.suffix.lower() in (".jsonl", ".ndjson")
        self._probe()

    def _probe(self) -> None:
        """BadInput where the beginning of the file does not look like text."""
        found, probed, stray = False, 0, 0
        with self.path.open("rb") as file:
            for line, _ in zip(_lines(file), range(_PROBED_LINES), strict=False):
                found = found or bool(self._text(line))
                probed += len(line)
                stray += len(line) - len(line.decode("utf-8", errors="ignore").encode())
                if found and probed > _PROBED_BYTES:
                    break
        if not found:
            wanted = 'JSON object with a "text"' if self._is_jsonl else "text in UTF-8"
            raise BadInput(f"{self.path}: no {wanted} in its first {_PROBED_LINES} lines")
        if stray > _MAX_STRAY * probed:
            raise BadInput(f"{self.path}: not text in UTF-8: {stray} of its first {probed} bytes are something else")

    def draw(self, rng: np.random.Generator, used: Sequence[tuple[int, int]]) -> str:
        """Consecutive lines from a random place, white space collapsed. `used` makes no difference."""
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
        """The text of a line; empty where it has none."""
        if b"\0" in line:
            return ""
        if not self._is_jsonl:
            return " ".join(line.decode("utf-8", errors="ignore").split())
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            return ""
        text = record.get("text") if isinstance(record, dict) else None
        # Halves of surrogate pairs, which JSON can spell, are no text.
        return " ".join(text.encode("utf-8", errors="ignore").decode("utf-8").split()) if isinstance(text, str) else ""


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(_MAX_LINE):
        yield line


def _lines_around(file: BinaryIO, start: int) -> Iterator[bytes]:
    """Every line once, from the first that begins after byte `start` on, then those before."""
    file.seek(start)
    file.readline(_MAX_LINE)
    turn = file.tell()
    yield from _lines(file)
    file.seek(0)
    while file.tell() < turn and (line := file.readline(_MAX_LINE)):
        yield line


class TranscriptTextSource:
    """What is said in the other videos of the data set, never in the example's own.

    Where an example shows every video there is, it is what is said outside the example's segments. `stores` are the
    store files in the order of the examples' video indices. Objects can be pickled.
    """

    def __init__(self, stores: Sequence[str | Path]) -> None:
        self._stores = tuple(map(Path, stores))

    def draw(self, rng: np.random.Generator, used: Sequence[tuple[int, int]]) -> str:
        """The transcript of a random video from a random segment on, then those of further ones. Raises BadInput where
        there is no word outside `used`."""
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
            raise BadInput("no other video says anything an example's random text could be: name a text file")
        return " ".join(parts)

    def _texts(self, rng: np.random.Generator, used: Sequence[tuple[int, int]]) -> Iterator[list[str]]:
        """Segments' texts of other videos in random order; without any, those of the same videos' unused segments."""
        videos = {video for video, _ in used}
        others = [video for video in rng.permutation(len(self._stores)).tolist() if video not in videos]
        found = False
        for video in others:
            texts = load_texts(self._stores[video])
            found = found or any(texts)
            if texts:
                yield texts
        if not found:
            taken = set(used)
            for video in sorted(videos):
                texts = load_texts(self._stores[video])
                yield [text for index, text in enumerate(texts) if (video, index) not in taken] or [""]


def open_text_source(path: str | Path, cache_dir: str | Path) -> FileTextSource:
    """A text source from a text or JSONL file, as it is or compressed (`.zst`).

    A compressed file is unpacked once into `cache_dir`, since it cannot be read from the middle. Raises BadInput
    where it is broken or unpacks to more than 64 GiB.
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
        raise BadInput(f"{packed}: not a whole zstd file: {error}") from error


def _decompressed(decompressor: Any, source: BinaryIO) -> Iterator[bytes]:
    """Content of all frames of a zstd file. The library's own readers take a cut file for a whole one."""
    frame = None
    while chunk := source.read(_ZSTD_CHUNK):
        while chunk:
            frame = frame or decompressor.decompressobj()
            yield frame.decompress(chunk)
            chunk, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    if frame is not None:
        raise BadInput(f"{source.name}: a zstd file that is cut short")
