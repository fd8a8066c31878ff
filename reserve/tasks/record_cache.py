"""Prepared examples on disk, each made once and then read back."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
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

    def get(self, key: str, make: Callable[[], Parts], sources: Sequence[str | Path] = ()) -> dict[str, bytes]:
        """The example called `key`.

        `make` makes it where it is not stored, where its file is damaged, and where one of `sources`, the files and
        folders that it is made from, has changed since. Sources that are no longer there do not count.
        """
        path, states = self.path(key), [_state(source) for source in sources]
        stored = _read(path, states)
        if stored is not None:
            return stored
        parts = dict(make())
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
            for name, content in parts.items():
                # A fixed date, so that the same example gives the same file.
                file.writestr(zipfile.ZipInfo(name), content)
            file.comment = _comment(parts, states)
        return parts


def _read(path: Path, states: Sequence[str]) -> dict[str, bytes] | None:
    """A stored example, None where it is absent, damaged, or made from other sources."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            names, *before = file.comment.decode("ascii").split(",")
            # Reading checks the CRC of each part, but nothing in a zip file checks its list of them.
            if names != _names_digest(file.namelist()) or len(before) != len(states):
                raise zipfile.BadZipFile("its list of parts has changed")
            changed = (now != then for now, then in zip(states, before, strict=True) if now != _ABSENT)
            if any(changed):
                logger.info("%s is made again, since its sources have changed", path)
                return None
            return {name: file.read(name) for name in file.namelist()}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, zlib.error) as error:
        logger.warning("%s is damaged (%s) and is made again", path, error)
        return None


_ABSENT = "-"


def _state(source: str | Path) -> str:
    """The size and time of change of a file or folder."""
    try:
        status = os.stat(source)
    except OSError:
        return _ABSENT
    return f"{status.st_size} {status.st_mtime_ns}"


def _comment(names: Iterable[str], states: Sequence[str]) -> bytes:
    return ",".join([_names_digest(names), *states]).encode("ascii")


def _names_digest(names: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
