"""Where the bytes of a set of shards come from."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from reserve.data.shards.cache import ByteCache
from reserve.data.shards.layout import check_file_name
from reserve.data.shards.records import FileRecord
from reserve.data.shards.remote import RemoteFiles, open_file_system
from reserve.errors import BadInput, EnvironmentFailure
from reserve.fs import is_environment_failure

_MAX_OPEN = 64
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::|://).*")
DEFAULT_CACHE_BYTES = 50 * 10**9


class Files(Protocol):
    """The files of one folder. Objects can be pickled.

    A file that is not there raises BadInput naming it; a machine that fails raises EnvironmentFailure.
    """

    where: str

    def path(self, name: str) -> Path:
        """A local copy of a whole file, or the file itself."""
        ...

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` - 1 of a file; fewer where it ends before."""
        ...

    def pinned(self, records: Iterable[FileRecord]) -> Files:
        """The same files, of which some are known to be as in these records, so that they can be cached."""
        ...


class LocalFiles:
    """Files of a local folder, of which some stay open."""

    def __init__(self, where: str | Path) -> None:
        self.where = str(where)
        self._open: OrderedDict[str, int] = OrderedDict()

    def path(self, name: str) -> Path:
        return Path(self.where) / check_file_name(name)

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        try:
            return os.pread(self._descriptor(name), stop - start, start)
        except OSError as error:
            raise failure(self.path(name), error) from error

    def pinned(self, records: Iterable[FileRecord]) -> LocalFiles:
        """These files: nothing of them is cached."""
        return self

    def _descriptor(self, name: str) -> int:
        number = self._open.pop(name, None)
        if number is None:
            number = os.open(check_not_special(self.path(name)), os.O_RDONLY)
            while len(self._open) >= _MAX_OPEN:
                os.close(self._open.popitem(last=False)[1])
        self._open[name] = number
        return number

    def __getstate__(self) -> dict[str, Any]:
        return {"where": self.where, "_open": OrderedDict()}

    def __del__(self) -> None:
        for number in self.__dict__.get("_open", {}).values():
            os.close(number)


def is_url(where: str) -> bool:
    """Whether a place is a URL of fsspec, such as s3://bucket/folder, rather than a local folder."""
    return _URL.fullmatch(where) is not None


def open_files(where: str | Path, cache: Path | None = None, cache_bytes: int = DEFAULT_CACHE_BYTES) -> Files:
    """The files of a local folder, or of a URL through a cache of at most `cache_bytes` in the folder `cache`.

    Without `cache` it is `user_cache()`. Raises ValueError for an unknown kind of URL, ImportError naming the package
    that its driver is in. Nothing is read, and no connection is made.
    """
    if not is_url(str(where)):
        return LocalFiles(where)
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
