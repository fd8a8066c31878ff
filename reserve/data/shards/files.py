"""Where the bytes of a set of shards come from."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any, Protocol

from reserve.errors import BadInput, EnvironmentFailure
from reserve.fs import is_environment_failure

_MAX_OPEN = 64


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


class LocalFiles:
    """Files of a local folder, of which some stay open."""

    def __init__(self, where: str | Path) -> None:
        self.where = str(where)
        self._open: OrderedDict[str, int] = OrderedDict()

    def path(self, name: str) -> Path:
        return Path(self.where) / name

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        try:
            return os.pread(self._descriptor(name), stop - start, start)
        except OSError as error:
            raise failure(self.path(name), error) from error

    def _descriptor(self, name: str) -> int:
        number = self._open.pop(name, None)
        if number is None:
            number = os.open(self.path(name), os.O_RDONLY)
            while len(self._open) >= _MAX_OPEN:
                os.close(self._open.popitem(last=False)[1])
        self._open[name] = number
        return number

    def __getstate__(self) -> dict[str, Any]:
        return {"where": self.where, "_open": OrderedDict()}

    def __del__(self) -> None:
        for number in self.__dict__.get("_open", {}).values():
            os.close(number)


def failure(path: str | Path, error: OSError) -> Exception:
    """What an error of opening or reading a file of a set is raised as."""
    reason = f"{path}: {error.strerror or error}"
    return EnvironmentFailure(reason) if is_environment_failure(error) else BadInput(reason)
