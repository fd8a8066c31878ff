"""A bounded cache of bytes on disk, shared by the processes of any number of runs."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reserve.errors import EnvironmentFailure
from reserve.fs import PARTIAL, remove_partial_files, replacing

RANGE, FILE = ".range", ".file"
"""Suffixes of entries: a range behind its SHA-256, and a whole file whose name is its SHA-256."""
_RESERVED = ".reserved"
_KEPT = 0.9
"""Share of the bound that is left after old entries are removed, so that this is not done for every new one."""
_ABANDONED = 3600.0
"""Seconds after which what a killed process was writing is removed. Containers that share a cache do not see each
other's processes, so a younger one may still be written."""
_HANDED_OUT = 5.0
"""Seconds in which a whole file that was asked for is not removed: it is about to be opened."""


class ByteCache:
    """Ranges and whole files in `folder`, together at most `max_bytes`, those being written included.

    What is being written or about to be opened can exceed the bound by itself. The entries used longest ago are removed
    first. Every entry is checked against its digest when it is read: a damaged one is removed and counts as absent. A
    process that is killed leaves nothing that another one would take for an entry. Objects can be pickled.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = Path(folder), max_bytes

    def range(self, key: str) -> bytes | None:
        """The bytes stored under `key`, if they are there."""
        path = self._path(_digest(key.encode()), RANGE)
        data = _read(path)
        if data is None:
            return None
        if hashlib.sha256(data[32:]).digest() != data[:32]:
            path.unlink(missing_ok=True)
            return None
        _touch(path)
        return data[32:]

    def add_range(self, key: str, data: bytes) -> None:
        """Stores bytes under `key`, unless they are more than the whole cache may hold."""
        size = len(data) + 32
        if size > self.max_bytes:
            return
        path = self._path(_digest(key.encode()), RANGE)
        with self._room(path, size), replacing(path) as temporary:
            temporary.write_bytes(hashlib.sha256(data).digest() + data)

    def file(self, sha256: str) -> Path | None:
        """The whole file of this SHA-256, if it is there. Its content is read to check it."""
        path = self._path(sha256, FILE)
        try:
            if _file_digest(path) == sha256:
                _touch(path)
                return path
        except FileNotFoundError:
            return None
        path.unlink(missing_ok=True)
        return None

    def keep(self, path: Path) -> bool:
        """Makes an entry the one used last, without reading it; False if it is gone."""
        _touch(path)
        return path.exists()

    def add_file(self, size: int, write: Callable[[Path], object]) -> Path:
        """Stores a whole file of about `size` bytes, which `write` writes to the path it is given. Returns its path.

        Raises EnvironmentFailure if the file is more than the cache may hold.
        """
        if size > self.max_bytes:
            raise EnvironmentFailure(
                f"a file of {size} bytes does not fit in the cache {self.folder} of {self.max_bytes} bytes: raise "
                "train.shard_cache_gb"
            )
        # Its name is not known before it is written.
        incoming = self._path(_digest(os.urandom(16)), FILE)
        with self._room(incoming, size):
            with replacing(incoming) as temporary:
                write(temporary)
                path = self._path(_file_digest(temporary), FILE)
            path.parent.mkdir(exist_ok=True)
            _touch(incoming)  # to digest and flush a large file can take longer than _HANDED_OUT
            incoming.replace(path)
        return path

    def _path(self, digest: str, suffix: str) -> Path:
        return self.folder / digest[:2] / f"{digest}{suffix}"

    @contextmanager
    def _room(self, path: Path, size: int) -> Iterator[None]:
        """Makes room for the entry `path`, which is written in the block. Raises EnvironmentFailure if that fails.

        An empty file beside the entry reserves the room meanwhile: a process that counts the bytes on the disk would
        miss those that are not written yet.
        """
        name = f".{path.name}.{size}{_RESERVED}.{os.getpid()}-{threading.get_ident()}{PARTIAL}"
        reservation = path.with_name(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._reserve(size, reservation)
                yield
            finally:
                reservation.unlink(missing_ok=True)
        except OSError as error:
            raise EnvironmentFailure(f"the cache {self.folder} cannot be written: {error}") from error

    def _reserve(self, size: int, reservation: Path) -> None:
        """Counts `size` more bytes; where they are too many, removes the entries used longest ago.

        Processes that are killed leave bytes counted that were never written, until their reservations are removed.
        """
        from filelock import FileLock

        total_file = self.folder / "total"
        with FileLock(self.folder / "lock"):
            total = _number(total_file)
            if total is None:
                total = self.max_bytes
            if total + size > self.max_bytes:
                total = self._remove_oldest(int(_KEPT * self.max_bytes) - size)
            total_file.write_text(f"{total + size}\n", "ascii")
            reservation.touch()

    def _remove_oldest(self, most: int) -> int:
        """Removes entries until at most `most` bytes are left, and returns how many are."""
        total, entries = 0, []
        for folder in self.folder.iterdir():
            if not folder.is_dir():
                continue
            remove_partial_files(folder, older_than=_ABANDONED)
            for path in folder.iterdir():
                if reserved := re.search(rf"\.(\d+){_RESERVED}\.", path.name):
                    total += int(reserved[1])
                elif path.suffix in (RANGE, FILE):
                    with suppress(FileNotFoundError):
                        status = path.stat()
                        total += status.st_size
                        entries.append((status.st_mtime_ns, status.st_size, path))
        handed_out = time.time_ns() - int(_HANDED_OUT * 1e9)
        for used, size, path in sorted(entries):
            if total <= most:
                break
            if path.suffix == FILE and used > handed_out:
                continue
            path.unlink(missing_ok=True)
            total -= size
        return total


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EnvironmentFailure(f"the cache cannot be read: {error}") from error


def _number(path: Path) -> int | None:
    """The number in a file; None if it is not there or was not written to its end."""
    data = _read(path) or b""
    return int(data) if re.fullmatch(rb"\d{1,18}\n", data) else None


def _touch(path: Path) -> None:
    """Makes an entry the one used last. Another process may have removed it, or the folder may be read-only."""
    with suppress(OSError):
        os.utime(path)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
