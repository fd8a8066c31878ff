"""The archive of a session's results."""

from __future__ import annotations

import os
import tarfile

import pytest

from benchmarks.gpu import archive


def contents(path) -> dict[str, bytes]:
    with tarfile.open(path) as packed:
        return {name: packed.extractfile(name).read() for name in packed.getnames()}


def test_it_has_all_files_by_their_paths(tmp_path):
    folder, packed = tmp_path / "results", tmp_path / "results.tar.gz"
    (folder / "tuned").mkdir(parents=True)
    (folder / "a.txt").write_text("one")
    (folder / "tuned" / "b.json").write_text("two")
    assert archive.pack(folder, packed) == []
    assert contents(packed) == {"a.txt": b"one", "tuned/b.json": b"two"}
    assert list(tmp_path.glob("*.part")) == []


def test_a_kill_while_it_is_written_leaves_the_old_one(tmp_path, monkeypatch):
    folder, packed = tmp_path / "results", tmp_path / "results.tar.gz"
    folder.mkdir()
    (folder / "a.txt").write_text("old")
    archive.pack(folder, packed)
    (folder / "a.txt").write_text("new")

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tarfile.TarFile, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        archive.pack(folder, packed)
    assert contents(packed) == {"a.txt": b"old"}


def test_what_is_too_large_is_left_out_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "LARGEST_BYTES", 20_000)
    folder, packed = tmp_path / "results", tmp_path / "results.tar.gz"
    folder.mkdir()
    for name, size in (("small", 10), ("medium", 15_000), ("large", 30_000)):
        (folder / name).write_bytes(os.urandom(size))
    assert archive.pack(folder, packed) == ["large"]
    assert contents(packed).keys() == {"small", "medium"}
    assert packed.stat().st_size <= 20_000
