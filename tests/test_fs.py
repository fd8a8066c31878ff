"""Files are replaced atomically."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reserve.fs import remove_partial_files, replacing, write_text_atomic


def test_file_is_replaced_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_file_stays_when_the_block_raises(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_error_names_the_file(tmp_path: Path) -> None:
    """A write to a full disk raises an error that names none."""
    with pytest.raises(OSError, match=r"No space left on device: '.*/file'"), replacing(tmp_path / "file"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_partial_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    kept = {f".file.{os.getpid()}-2.partial", "file.partial", ".file.partial", ".other"}
    for name in (f".file.{killed.pid}-2.partial", *kept):
        (tmp_path / name).write_text("")
    remove_partial_files(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_threads_that_write_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path, texts = tmp_path / "file", [str(number) * 1000 for number in range(4)]

    def write(text: str) -> None:
        for _ in range(20):
            write_text_atomic(path, text)
            assert path.read_text() in texts

    with ThreadPoolExecutor(len(texts)) as pool:
        list(pool.map(write, texts))
    assert list(tmp_path.iterdir()) == [path]
