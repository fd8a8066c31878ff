"""The files of a set of shards at a URL, through a cache on the local disk."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from reserve.data.shards.cache import ByteCache
from reserve.data.shards.layout import check_file_name
from reserve.data.shards.records import FileRecord
from reserve.errors import BadInput, EnvironmentFailure

logger = logging.getLogger(__name__)

ATTEMPTS = 6
FIRST_DELAY = 0.5
"""Seconds before the second attempt; each further one waits twice as long."""
_PASSING = (408, 425, 429)
"""HTTP statuses of 400 to 499 that another attempt may not get."""
_OUT_OF_RANGE = 416
"""HTTP's status where a file ends before the range."""
Result = TypeVar("Result")


class RemoteFiles:
    """The files below a URL that fsspec can open. Objects can be pickled; every process has connections of its own.

    Files that are `pinned` are cached by their URL and SHA-256, so what was cached of a file that has changed is not
    used. Others are read afresh every time. A read that fails is tried again ATTEMPTS - 1 times, and then raises
    EnvironmentFailure; a file that is not there raises BadInput at once. Both name the file's URL.
    """

    def __init__(self, where: str, cache: ByteCache, pinned: Iterable[FileRecord] = ()) -> None:
        self.where, self._cache = where.rstrip("/"), cache
        self._pinned = {record.name: record for record in pinned}
        self._process, self._system, self._root = -1, None, ""
        self._ignores_ranges = False
        self._copies: dict[str, Path] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFiles, (self.where, self._cache, list(self._pinned.values()))

    def pinned(self, records: Iterable[FileRecord]) -> RemoteFiles:
        """The same files, of which some are known to be as in these records."""
        return RemoteFiles(self.where, self._cache, records)

    def path(self, name: str) -> Path:
        """A local copy of a whole file. Open it at once, since the cache may remove it soon. Raises BadInput if it is
        not as its record says."""
        record = self._pinned.get(check_file_name(name))
        if record is None:
            data = self._attempt(name, lambda system, path: system.cat_file(path))
            return self._cache.add_file(len(data), lambda copy: copy.write_bytes(data))
        cached = self._cache.file(record.sha256)
        if cached is not None:
            return cached
        for _ in range(2):  # a transfer can lose bytes without an error
            copy = self._cache.add_file(
                record.bytes, lambda copy: self._attempt(name, lambda system, path: system.get_file(path, str(copy)))
            )
            if copy.stem == record.sha256:
                return copy
        raise BadInput(not_as_recorded(self._url(name), copy.stem, record.sha256))

    def read_range(self, name: str, start: int, stop: int, *, afresh: bool = False) -> bytes:
        """Bytes `start` to `stop` - 1 of a file; fewer where it ends before. `afresh` replaces cached ones."""
        record = self._pinned.get(check_file_name(name))
        if record is None:
            return self._fetch(name, start, stop)
        key = json.dumps([self.where, name, record.sha256, start, stop])
        data = None if afresh else self._cache.range(key)
        if data is not None:
            return data
        if self._ignores_ranges:
            if afresh:
                self._copies.pop(name, None)
            return self._from_whole(name, start, stop)
        data = self._fetch(name, start, stop)
        if len(data) == stop - start:
            self._cache.add_range(key, data)
        return data

    def _fetch(self, name: str, start: int, stop: int) -> bytes:
        data = self._attempt(name, lambda system, path: _range_of(system, path, start, stop))
        if len(data) <= stop - start:
            return data
        if not self._ignores_ranges:
            self._ignores_ranges = True
            logger.warning("%s: the server sends whole files where ranges are asked for; they are cached", self.where)
        return data[start:stop]

    def _from_whole(self, name: str, start: int, stop: int) -> bytes:
        """A range of the local copy of a whole file, which is checked when this process first uses it."""
        path = self._copies.get(name)
        if path is None or not self._cache.keep(path):
            self._copies[name] = path = self.path(name)
        with path.open("rb") as file:
            return os.pread(file.fileno(), stop - start, start)

    def _attempt(self, name: str, action: Callable[[Any, str], Result]) -> Result:
        """What `action` returns for the file system and the path of a file on it."""
        url = self._url(name)
        delay, failure = FIRST_DELAY, ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(delay)
                delay *= 2
            try:
                return action(self._file_system(), f"{self._root}/{name}")
            except FileNotFoundError as error:
                raise BadInput(f"{url}: there is no such file") from error
            except (EnvironmentFailure, ImportError):
                raise
            except Exception as error:  # every driver has exceptions of its own
                failure = f"{type(error).__name__}: {error}"
                status = getattr(error, "status", 0)
                denied = isinstance(error, PermissionError)
                if denied or (isinstance(status, int) and 400 <= status < 500 and status not in _PASSING):
                    raise BadInput(f"{url} cannot be read: {failure}") from error
                logger.info("%s: attempt %d of %d failed: %s", url, attempt + 1, ATTEMPTS, failure)
        raise EnvironmentFailure(f"{url} cannot be read, after {ATTEMPTS} attempts: {failure}")

    def _file_system(self) -> Any:
        if self._process != os.getpid():
            self._system, self._root = open_file_system(self.where)
            self._process = os.getpid()
        return self._system

    def _url(self, name: str) -> str:
        return f"{self.where}/{name}"


def not_as_recorded(where: str | Path, found: str, expected: str) -> str:
    """The message for a file with another SHA-256 than its record."""
    return f"{where} is damaged or of another set: its SHA-256 is {found}, not {expected} as in the manifest"


def _range_of(system: Any, path: str, start: int, stop: int) -> bytes:
    """A range of a file; nothing if the file ends before it."""
    try:
        return bytes(system.cat_file(path, start=start, end=stop))
    except Exception as error:
        if getattr(error, "status", 0) == _OUT_OF_RANGE:
            return b""
        raise


def open_file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, shared with nothing else in the process, and the path on it.

    Raises ValueError for an unknown kind of URL, ImportError naming the package that its driver is in, BadInput where
    the driver fails for another reason, such as an archive that is not there.
    """
    import fsspec

    try:
        system, root = fsspec.core.url_to_fs(url, skip_instance_cache=True)
    except ValueError as error:
        raise ValueError(f"{url}: {error}") from error
    except ImportError as error:
        raise ImportError(f"{url}: {error}") from error
    except Exception as error:  # every driver has exceptions of its own
        raise BadInput(f"{url} cannot be opened: {type(error).__name__}: {error}") from error
    return system, str(root).rstrip("/")
