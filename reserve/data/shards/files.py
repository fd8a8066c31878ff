"""Where the bytes of a set of shards come from."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from reserve.data.shards.cache import ByteCache
from reserve.data.shards.layout import check_file_name
from reserve.data.shards.records import FileRecord
from reserve.data.shards.remote import RemoteFiles, not_as_recorded, open_file_system
from reserve.errors import BadInput, EnvironmentFailure
from reserve.fs import is_environment_failure

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::|://).*")
DEFAULT_CACHE_BYTES = 50 * 10**9


class Files(Protocol):
    """The files of one folder. Objects can be pickled.

    A file that is not there raises BadInput naming it; a machine that fails raises EnvironmentFailure.
    """

    where: str

    def path(self, name: str) -> Path:
        """A local copy of a whole file, or the file itself. Raises BadInput if it is pinned and not as its record
        says."""
        ...

    def read_range(self, name: str, start: int, stop: int, *, afresh: bool = False) -> bytes:
        """Bytes `start` to `stop` - 1 of a file; fewer where it ends before. `afresh` reads no cached ones."""
        ...

    def pinned(self, records: Iterable[FileRecord]) -> Files:
        """The same files, of which some must be as in these records, and can be cached."""
        ...


class LocalFiles:
    """Files of a local folder.

    Those that are `pinned` are checked against their SHA-256 before `path` returns them, and again when they have been
    written since. A file is opened for each read, so that one that is gone or was replaced is noticed.
    """

    def __init__(self, where: str | Path, pinned: Iterable[FileRecord] = ()) -> None:
        self.where = str(where)
        # Samples of a tar are checked one by one.
        self._pinned = {record.name: record for record in pinned if not record.name.endswith(".tar")}
        self._checked: dict[str, tuple[int, ...]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalFiles, (self.where, list(self._pinned.values()))

    def path(self, name: str) -> Path:
        path = Path(self.where) / check_file_name(name)
        if name in self._pinned:
            try:
                self._check(check_not_special(path), self._pinned[name])
            except OSError as error:
                raise failure(path, error) from error
        return path

    def read_range(self, name: str, start: int, stop: int, *, afresh: bool = False) -> bytes:
        path = Path(self.where) / check_file_name(name)
        try:
            with check_not_special(path).open("rb", buffering=0) as file:
                stop = min(stop, os.fstat(file.fileno()).st_size)  # an index may ask for more than there is memory
                return os.pread(file.fileno(), max(stop - start, 0), start)
        except OSError as error:
            raise failure(path, error) from error

    def pinned(self, records: Iterable[FileRecord]) -> LocalFiles:
        return LocalFiles(self.where, records)

    def _check(self, path: Path, record: FileRecord) -> None:
        status = path.stat()
        state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if self._checked.get(record.name) == state:
            return
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != record.sha256:
            raise BadInput(not_as_recorded(path, found, record))
        self._checked[record.name] = state


def is_url(where: str) -> bool:
    """Whether a place is a URL of fsspec, such as s3://bucket/folder, rather than a local folder."""
    return _URL.fullmatch(where) is not None


def open_files(where: str | Path, cache: Path | None = None, cache_bytes: int = DEFAULT_CACHE_BYTES) -> Files:
    """The files of a local folder, or of a URL through a cache of at most `cache_bytes` in the folder `cache`.

    Without `cache` it is `user_cache()`. Raises ValueError for a URL with a query and as open_file_system. No file of
    the folder is read.
    """
    if not is_url(str(where)):
        return LocalFiles(where)
    if re.match(r"https?://[^?#]*[?#]", str(where)):
        raise ValueError(
            f"{where}: the URL of a folder must end in its path, without a query: file names are added to it"
        )
    system, root = open_file_system(str(where))
    if "file" in (system.protocol if isinstance(system.protocol, tuple) else (system.protocol,)):
        return LocalFiles(root)
    return RemoteFiles(str(where), ByteCache(cache or user_cache(), cache_bytes))


def user_cache() -> Path:
    """The user's folder for cached shards."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reserve" / "shards"


def check_not_special(path: Path) -> Path:
    """A file that may be opened. Raises BadInput for a pipe or a device, which could block for ever."""
    if path.exists() and not path.is_file():
        raise BadInput(f"{path}: not a regular file")
    return path


def failure(path: str | Path, error: OSError) -> Exception:
    """What an error of opening or reading a file of a set is raised as."""
    reason = f"{path}: {error.strerror or error}"
    return EnvironmentFailure(reason) if is_environment_failure(error) else BadInput(reason)
