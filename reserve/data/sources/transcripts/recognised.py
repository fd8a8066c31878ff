"""Whether a transcript was recognised by a machine, judged by what only machines write."""

from __future__ import annotations

import re
from pathlib import Path

from reserve.errors import BadInput, EnvironmentFailure
from reserve.fs import check_regular_file, is_environment_failure

_HEAD_BYTES = 65536
# YouTube gives word times to recognised speech alone.
_MARKS = {
    ".vtt": re.compile(rb"<(?:\d\d:)?\d\d:\d\d\.\d{3}><c[.>]"),
    ".json3": re.compile(rb'"tOffsetMs"'),
    ".srv3": re.compile(rb'<s\b[^<>]*\b(?:t|ac)="'),
}


def is_recognised(path: Path) -> bool:
    """Whether the beginning of a file is YouTube's recognised speech. Raises EnvironmentFailure as fs.py decides."""
    if (mark := _MARKS.get(path.suffix.lower())) is None:
        return False
    try:
        check_regular_file(path)
        with path.open("rb") as file:
            return mark.search(file.read(_HEAD_BYTES)) is not None
    except (BadInput, OSError) as error:
        if is_environment_failure(error):
            raise EnvironmentFailure(f"{path}: {error}") from error
        return False
