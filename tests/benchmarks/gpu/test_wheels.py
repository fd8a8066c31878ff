"""Wheels in pieces: what is left out, and that they come together whole or not at all."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from benchmarks.gpu import wheels
from benchmarks.gpu.wheels import is_needed, join, main, pinned, split


@pytest.fixture
def pieces(tmp_path):
    """Two wheels in pieces of 2000 bytes."""
    noise = np.random.default_rng(0).bytes(5000)
    found = []
    for name, files in {
        "a.whl": {"nvidia/dali/lib.so": noise, "nvidia/dali/x.cpython-311-x86_64.so": b"x", "a.dist-info/RECORD": b""},
        "b.whl": {"nvidia/__init__.py": b"raise ImportError", "six.py": b"x = 1\n"},
    }.items():
        with zipfile.ZipFile(tmp_path / name, "w") as wheel:
            for path, content in files.items():
                wheel.writestr(path, content)
        found.append(tmp_path / name)
    split(found, tmp_path / "pieces", 2000)
    return tmp_path / "pieces"


def test_round_trip(pieces, tmp_path):
    assert sorted(path.name for path in pieces.iterdir()) == ["manifest.json", "piece-000", "piece-001", "piece-002"]
    assert all(path.stat().st_size <= 2000 for path in pieces.glob("piece-*"))
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "old").touch()
    assert join(pieces, tmp_path / "site") is None
    found = {str(path.relative_to(tmp_path / "site")) for path in (tmp_path / "site").rglob("*") if path.is_file()}
    assert found == {"nvidia/dali/lib.so", "a.dist-info/RECORD", "six.py"}
    assert len((tmp_path / "site" / "nvidia" / "dali" / "lib.so").read_bytes()) == 5000


def test_piece_that_is_absent(pieces, tmp_path):
    (pieces / "piece-001").unlink()
    assert join(pieces, tmp_path / "site") == "no piece-001 of 3 pieces: carry it"
    assert not (tmp_path / "site").exists()


def test_piece_that_is_damaged(pieces, tmp_path):
    (pieces / "piece-002").write_bytes(b"x")
    assert join(pieces, tmp_path / "site") == "piece-002 is damaged: carry it again"


def test_no_manifest(tmp_path, capsys):
    assert main(["join", "--folder", str(tmp_path)]) == 1
    assert "manifest.json: the first call carries it" in capsys.readouterr().err


def test_command(pieces, monkeypatch, capsys):
    monkeypatch.setattr(wheels, "download", lambda folder: sorted(pieces.parent.glob("*.whl")))
    assert main(["split", "--folder", str(pieces.parent)]) == 0
    assert json.loads((pieces / "manifest.json").read_text("utf-8"))["wheels"] == ["a.whl", "b.whl"]
    assert main(["join", "--folder", str(pieces.parent)]) == 0
    assert "unpacked into" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("nvidia/dali/backend_impl.cpython-312-x86_64-linux-gnu.so", True),
        ("nvidia/dali/backend_impl.cpython-311-x86_64-linux-gnu.so", False),
        ("nvidia/dali/backend_impl.cpython-314t-x86_64-linux-gnu.so", False),
        ("nvidia/nvimgcodec/extensions/libnvjpeg_ext.so.0.9.0", True),
        ("nvidia/nvimgcodec/extensions/libnvtiff_ext.so.0.9.0", False),
        ("nvidia/__init__.py", False),
        ("nvidia/dali/__init__.py", True),
    ],
)
def test_what_is_needed(name, needed):
    assert is_needed(name) is needed


def test_versions_are_those_of_the_tests():
    assert pinned("nvidia-dali-cuda130").startswith("nvidia-dali-cuda130==")
    assert pinned("nothing-of-the-kind") == "nothing-of-the-kind"
