"""Reads files of unknown origin: regular files only, of bounded size, whatever their names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from reserve.errors import BadInput
from reserve.fs import check_regular_file

MAX_TEXT_BYTES = 64 * 2**20
"""Largest transcript or metadata file in bytes. The captions of a day of speech take less than a tenth of it."""


def read_bounded_bytes(path: Path) -> bytes:
    """Content of a file of at most MAX_TEXT_BYTES bytes."""
    size = check_regular_file(path).st_size
    if size > MAX_TEXT_BYTES:
        raise BadInput(f"{size} bytes; a text file may have at most {MAX_TEXT_BYTES}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}") from error


def read_text(path: Path) -> str:
    """Text of a file in UTF-8 (with or without byte order mark), UTF-16 (with one) or, failing these, Windows-1252."""
    content = read_bounded_bytes(path)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    elif b"\0" in content:
        raise BadInput("binary data, not text")
    else:
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise BadInput("not text in UTF-8, UTF-16 or Windows-1252")


_NOT_SPACE = re.compile(r"\S")


def read_json_values(path: Path) -> list[Any]:
    """The values of a JSON file: usually one, but several in a row if a program printed each of its results."""
    text = read_text(path)
    decoder, values, place = json.JSONDecoder(), [], 0
    try:
        while match := _NOT_SPACE.search(text, place):
            value, place = decoder.raw_decode(text, match.start())
            values.append(value)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"not JSON: {error}") from error
    return values


def read_json(path: Path) -> Any:
    """A JSON file's value."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"not JSON: {error}") from error
