"""Writes annotation files, each whole or not at all.

The media of a data set are written before its annotations: where these exist, so do the media.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from reserve.fs import write_text_atomic


def write_json(path: Path, value: Any) -> None:
    """Writes a value on one line, as the data sets do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(path, json.dumps(value))


def write_json_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Writes one record a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(path, "".join(json.dumps(record) + "\n" for record in records))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a comma-separated table."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(path, text.getvalue())
