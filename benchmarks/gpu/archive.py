"""The results of a session in one file that is whole at any time."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

LARGEST_BYTES = 15 << 20
"""A larger archive leaves out its largest files: machines limit the files that they send back."""


def pack(folder: Path, archive: Path) -> list[str]:
    """Packs `folder` into `archive`, replacing it at once, and returns the names of the files that it left out."""
    files = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    unfinished = archive.with_name(f"{archive.name}.part")
    left_out: list[str] = []
    while True:
        with tarfile.open(unfinished, "w:gz", compresslevel=6) as packed:
            for path in files:
                packed.add(path, str(path.relative_to(folder)))
        if unfinished.stat().st_size <= LARGEST_BYTES or not files:
            os.replace(unfinished, archive)
            return left_out
        left_out.append(str(files.pop().relative_to(folder)))
