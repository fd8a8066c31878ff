"""Folders of downstream data sets: their files, read and checked, and the report of `--check`."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import json
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from reserve.errors import BadInput
from reserve.fs import check_regular_file

MAX_ANNOTATION_BYTES = 2**31
"""Larger annotation files are not read; the largest of the seven data sets has 0.5 GB."""

Source = TypeVar("Source")

_WHITE_SPACE = b" \t\r\n" + codecs.BOM_UTF8
_SHOWN = 3
"""Missing files that a report names."""


@dataclass(frozen=True)
class DataFile:
    """A file or folder that a data set must have: its `path` in the data set's folder, `what` it is, and the `source`
    it comes from."""

    path: str
    what: str
    source: str

    def within(self, folder: Path) -> Path:
        """Its path. Raises BadInput naming the path, what is missing and where it comes from."""
        path = folder / self.path
        if not path.exists():
            raise BadInput(f"{path} does not exist: {self.what}, from {self.source}")
        return path


@dataclass
class FolderCheck:
    """What `--check` found: `lines` describe the data set, `problems` must be fixed before it can be used."""

    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def files(self, what: str, paths: Sequence[Path], source: str) -> None:
        """Reports how many of the media files `paths` exist; missing ones are a problem, the first few by name."""
        self._count(what, len(paths), [path for path in paths if not path.is_file()], source)

    def paths(self, what: str, needed: Collection[str], present: Collection[str], folder: Path, source: str) -> None:
        """Like `files`, for relative paths in `folder` of which `present` exist."""
        missing = [name for name in needed if name not in present]
        self._count(what, len(needed), [folder / name for name in missing], source)

    def attempt(self, read: Callable[[Source], Any], source: Source) -> None:
        """Reads a sample; the BadInput that `read` raises is a problem."""
        try:
            read(source)
        except BadInput as error:
            self.problems.append(str(error))

    def _count(self, what: str, needed: int, missing: Sequence[Path], source: str) -> None:
        self.lines.append(f"{what}: {needed - len(missing)} of {needed}")
        if missing:
            names = ", ".join(map(str, missing[:_SHOWN])) + (", …" if len(missing) > _SHOWN else "")
            self.problems.append(f"{len(missing)} of {needed} {what} are missing ({names}); get them from {source}")

    def __str__(self) -> str:
        return "\n".join((*self.lines, *(f"problem: {problem}" for problem in self.problems)))


def files_below(folder: Path) -> frozenset[str]:
    """Relative paths of all files in a folder and its folders, linked ones included; empty if there is none.

    It lists each folder once, which is much faster than asking for hundreds of thousands of files one by one.
    """
    found, seen = [], set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:  # a link back to a folder above
            folders.clear()
            continue
        seen.add(real)
        prefix = os.path.relpath(root, folder)
        found += names if prefix == "." else [os.path.join(prefix, name) for name in names]
    return frozenset(found)


class Record:
    """One annotation, its fields checked as they are read. Errors name the file, the place in it and the field."""

    def __init__(self, values: Any, where: str) -> None:
        if not isinstance(values, Mapping):
            raise BadInput(f"{where} must be a map of fields; got {type(values).__name__}")
        self.values, self.where = values, where

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.values.get(name) is not None

    def text(self, name: str, default: str | None = None) -> str:
        """A field that holds text."""
        return self._typed(name, str, "text", default)

    def whole(self, name: str, default: int | None = None) -> int:
        """A field that holds a whole number, also one written as text."""
        value = self._value(name, default)
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = int(value)
        return self._checked(value, type(value) is int, name, "a whole number")

    def number(self, name: str, default: float | None = None) -> float:
        """A field that holds a finite number, also one written as text."""
        value = self._value(name, default)
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = float(value)
        good = type(value) in (int, float) and math.isfinite(value)
        return float(self._checked(value, good, name, "a finite number"))

    def list(self, name: str) -> list[Any]:
        """A field that holds a list."""
        return self._typed(name, list, "a list", None)

    def _typed(self, name: str, kind: type, allowed: str, default: Any) -> Any:
        value = self._value(name, default)
        return self._checked(value, isinstance(value, kind), name, allowed)

    def _value(self, name: str, default: Any) -> Any:
        if self.has(name):
            return self.values[name]
        if default is not None:
            return default
        raise BadInput(f"{self.where} has no {name!r}")

    def _checked(self, value: Any, good: bool, name: str, allowed: str) -> Any:
        if not good:
            raise BadInput(f"{self.where}: {name!r} must be {allowed}; got {value!r:.80}")
        return value


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises BadInput naming the file and what is wrong."""
    return _parsed(_read(path), str(path))


def read_json_record(path: Path) -> Record:
    """The one record of a JSON file. Raises BadInput naming the file and what is wrong."""
    return Record(read_json(path), str(path))


def read_json_records(path: Path) -> list[Record]:
    """The records of a JSON file that holds a list. Raises BadInput naming the file and what is wrong."""
    content = read_json(path)
    if not isinstance(content, list):
        raise BadInput(f"{path} must hold a list; got {type(content).__name__}")
    return [Record(values, f"{path}, entry {number}") for number, values in enumerate(content, 1)]


def read_json_lines(path: Path) -> list[Record]:
    """All records of a JSON-lines file; empty lines are skipped. Raises BadInput naming the file and the line."""
    return list(JsonLines(path))


class JsonLines:
    """The records of a JSON-lines file, read one by one when they are asked for: data sets have hundreds of thousands.

    Making it raises BadInput if the file cannot be read; asking for a record, naming file and line, if that is not
    JSON. Empty lines do not count. Picklable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _checked_file(path)
        starts, lines, offset = [], [], 0
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip(_WHITE_SPACE):
                    starts.append(offset)
                    lines.append(number)
                offset += len(line)
        self._starts = np.array(starts, dtype=np.int64)
        self._lines = np.array(lines, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Record:
        where = f"{self.path}, line {self._lines[index]}"
        with self.path.open("rb") as file:
            file.seek(self._starts[index])
            content = file.readline()
        return self._record(content, where)

    def __iter__(self) -> Iterator[Record]:
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip(_WHITE_SPACE):
                    yield self._record(line, f"{self.path}, line {number}")

    @staticmethod
    def _record(content: bytes, where: str) -> Record:
        try:
            text = content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadInput(f"{where} is not UTF-8: {error}") from error
        return Record(_parsed(text, where), where)


def read_table(
    path: Path, columns: Iterable[str], *, delimiter: str = ",", header: Sequence[str] | None = None
) -> list[Record]:
    """The rows of a CSV or TSV file as records of text. `header` names the columns of a file without a header line.

    Raises BadInput naming the file and a column of `columns` that it lacks, or a line of another length. A
    tab-separated file has no quotes, as LSMDC's.
    """
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    # Not splitlines: quoted text may hold line breaks, and any text the rarer ones.
    reader = csv.reader(io.StringIO(_read(path), newline=""), delimiter=delimiter, quoting=quoting)
    try:
        names = list(header) if header is not None else next(reader, [])
        absent = [name for name in columns if name not in names]
        if absent:
            raise BadInput(f"{path} has no column {absent[0]!r}; it has {', '.join(names)}")
        records = []
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if not row:
                continue
            if len(row) != len(names):
                raise BadInput(f"{where} must have {len(names)} columns; it has {len(row)}")
            records.append(Record(dict(zip(names, row, strict=True)), where))
    except csv.Error as error:
        raise BadInput(f"{path}, line {reader.line_num} is not CSV: {error}") from error
    return records


def _checked_file(path: Path) -> None:
    try:
        size = check_regular_file(path).st_size
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error
    if size > MAX_ANNOTATION_BYTES:
        raise BadInput(f"{path}: {size} bytes are too many for annotations; at most {MAX_ANNOTATION_BYTES} are read")


def _read(path: Path) -> str:
    _checked_file(path)
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8: {error}") from error


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where} is not JSON: {error}") from error
