"""Prepared examples on disk, each made once and then read back."""

from __future__ import annotations

import hashlib
import io
import logging
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from reserve.fs import replacing

logger = logging.getLogger(__name__)

Parts = Mapping[str, bytes]
"""A prepared example as files by name: pictures, sounds, JSON."""


class RecordCache:
    """Prepared examples below `folder`, one zip file each.

    `version` names how they are prepared: examples of another version are not found. Any number of processes may use
    one folder.
    """

    def __init__(self, folder: Path, version: str) -> None:
        self.folder, self.version = folder, version

    def path(self, key: str) -> Path:
        """Where the example called `key` is stored."""
        digest = hashlib.sha256(f"{self.version}\n{key}".encode("utf-8", "surrogateescape")).hexdigest()
        # Folders of a hundred thousand files are slow on many file systems.
        return self.folder / digest[:2] / f"{digest[2:34]}.zip"

    def get(self, key: str, make: Callable[[], Parts]) -> dict[str, bytes]:
        """The example called `key`, made by `make` where it is not stored or its file is damaged."""
        path = self.path(key)
        stored = _read(path)
        if stored is not None:
            return stored
        parts = dict(make())
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
            for name, content in parts.items():
                # A fixed date, so that the same example gives the same file.
                file.writestr(zipfile.ZipInfo(name), content)
            file.comment = _names_digest(parts)
        return parts


def _read(path: Path) -> dict[str, bytes] | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            # Reading checks the CRC of each part, but nothing in a zip file checks its list of them.
            if file.comment != _names_digest(file.namelist()):
                raise zipfile.BadZipFile("its list of parts has changed")
            return {name: file.read(name) for name in file.namelist()}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, zlib.error) as error:
        logger.warning("%s is damaged (%s) and is made again", path, error)
        return None


def _names_digest(names: Iterable[str]) -> bytes:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16].encode()
