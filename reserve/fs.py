"""Files that appear whole or not at all, and the check for regular files."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reserve.errors import BadInput, EnvironmentFailure

_ENVIRONMENT = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENODEV,
        errno.ENXIO,
        errno.ENOTCONN,
        errno.ESTALE,
        errno.EHOSTDOWN,
        errno.ETIMEDOUT,
    }
)
PARTIAL = ".partial"
"""Suffix of files that are being written."""


def is_environment_failure(error: BaseException) -> bool:
    """Whether an error is the machine's fault, whatever file it met: no space, too many open files, a lost mount."""
    return isinstance(error, EnvironmentFailure) or getattr(error, "errno", None) in _ENVIRONMENT


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` that replaces it when the block ends, and is removed when the block raises.

    The content is flushed to disk first, so that a crash leaves the old file, the new one or none, never a part. An
    OSError without a file name, such as that of a full disk, gets that of `path`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{PARTIAL}")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flushes to the disk which files a folder holds: a rename survives a power failure only after this."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def remove_partial_files(folder: Path, *, older_than: float = 0.0) -> None:
    """Removes what killed processes of this machine left of files that they were writing with `replacing`.

    Keeps those that were written to in the last `older_than` seconds.
    """
    for path in folder.glob(f".*{PARTIAL}"):
        process = path.name.removesuffix(PARTIAL).rpartition(".")[2].partition("-")[0]
        if process.isdecimal() and not _is_running(int(process)):
            with suppress(FileNotFoundError):
                if not older_than or time.time() - path.stat().st_mtime >= older_than:
                    path.unlink()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def write_text_atomic(path: Path, text: str, *, errors: str = "strict") -> None:
    """Writes `text` in UTF-8; `errors` says what to do with characters that are not Unicode, as in str.encode."""
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8", errors=errors)


def check_regular_file(path: Path) -> os.stat_result:
    """Stat of a non-empty regular file.

    Raises BadInput where `path` is absent, empty, a folder, or a pipe or device that could block a read for ever, and
    EnvironmentFailure where its file system is out of reach.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        if is_environment_failure(error):
            raise EnvironmentFailure(f"{path}: {error}") from error
        raise BadInput(f"cannot be opened: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(status.st_mode):
        raise BadInput("a folder, not a file" if os.access(path, os.R_OK | os.X_OK) else "a folder that cannot be read")
    if not stat.S_ISREG(status.st_mode):
        raise BadInput("not a regular file")
    if status.st_size == 0:
        raise BadInput("empty file")
    return status
