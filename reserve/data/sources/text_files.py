"""Reads files of unknown origin: regular files only, of bounded size, whatever their names and encodings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from reserve.data.sources.encodings import DecodedText, decode_text
from reserve.errors import BadInput, EnvironmentFailure
from reserve.fs import check_regular_file, is_environment_failure

MAX_TEXT_BYTES = 64 * 2**20
"""Largest transcript or metadata file in bytes. The word-timed captions of a day of speech take a quarter of it."""
MAX_JSON_VALUES = 4_000_000
"""Most values of a JSON file, counted before parsing: each takes up to a few hundred bytes of memory. The word times of
a day of speech have half as many."""


def read_bounded_bytes(path: Path) -> bytes:
    """Content of a file of at most MAX_TEXT_BYTES bytes."""
    size = check_regular_file(path).st_size
    if size > MAX_TEXT_BYTES:
        raise BadInput(f"{size} bytes; a text file may have at most {MAX_TEXT_BYTES}")
    try:
        return path.read_bytes()
    except OSError as error:
        if is_environment_failure(error):
            raise EnvironmentFailure(f"{path}: {error}") from error
        raise BadInput(f"cannot be read: {error.strerror}") from error


def read_text(path: Path) -> DecodedText:
    """Text of a file in any encoding that is beyond doubt (encodings.py), and warnings about it."""
    return decode_text(read_bounded_bytes(path))


_NOT_SPACE = re.compile(r"\S")


def parse_json_values(text: str) -> list[Any]:
    """The values of a JSON text: usually one, but several in a row if a program printed each of its results."""
    _check_values(text)
    decoder, values, place = json.JSONDecoder(), [], 0
    try:
        while match := _NOT_SPACE.search(text, place):
            value, place = decoder.raw_decode(text, match.start())
            values.append(value)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"not JSON: {error}") from error
    return values


def parse_json(text: str) -> Any:
    """The value of a JSON text."""
    _check_values(text)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"not JSON: {error}") from error


def _check_values(text: str) -> None:
    values = sum(map(text.count, ",[{"))
    if values > MAX_JSON_VALUES:
        raise BadInput(f"{values} values in its JSON; a transcript or metadata file has at most {MAX_JSON_VALUES}")
