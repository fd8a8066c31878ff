"""setup.py and CMakeLists.txt: what a wheel holds with and without the tools that the native ops need."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from reserve_kernels import native

ROOT = Path(__file__).resolve().parents[1]
PARTS = ["CMakeLists.txt", "LICENSE", "README.md", "csrc", "kernels", "pyproject.toml", "reserve", "setup.py"]


@pytest.fixture
def source(tmp_path) -> Path:
    """A copy of what a build reads, so that it leaves nothing behind here."""
    copy = tmp_path / "source"
    copy.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy(ROOT / part, copy)
    return copy


def build_wheel(source: Path, **environment: str) -> tuple[list[str], str, Path]:
    """The names in the wheel, what the build printed, and the wheel. Without isolation: that would need a network."""
    pytest.importorskip("setuptools", minversion="77")
    command = [sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "--no-build-isolation", "--no-index"]
    environ = os.environ | {"RESERVE_CUDA": "0"} | environment
    done = subprocess.run(
        [*command, "-w", source.parent, source], env=environ, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = source.parent.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist(), done.stdout + done.stderr, wheel


@pytest.mark.skipif(shutil.which("cmake") is None or shutil.which("c++") is None, reason="no CMake or C++ compiler")
def test_a_wheel_holds_a_library_that_loads(source, tmp_path):
    names, _, wheel = build_wheel(source)
    assert wheel.name.split("-")[2:4] == ["py3", "none"]
    assert f"reserve_kernels/{native.LIBRARY}" in names
    with zipfile.ZipFile(wheel) as archive:
        library = native.NativeLibrary(Path(archive.extract(f"reserve_kernels/{native.LIBRARY}", tmp_path)))
    assert library.has_isa("baseline")
    assert not library.has_cuda


def test_without_tools_a_wheel_says_so_in_one_line_and_holds_no_library(source, tmp_path):
    empty = tmp_path / "bin"
    empty.mkdir()
    names, output, _ = build_wheel(source, PATH=str(empty))
    assert not [name for name in names if name.endswith(".so")]
    (line,) = [line for line in output.splitlines() if "native ops left out" in line]
    assert line.strip() == "reserve: native ops left out (CMake was not found); the ops run in PyTorch"


def test_building_asks_for_no_torch():
    # Isolated builds would download it. CMake comes as a package, so that a compiler is all a machine needs.
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert requires == ["setuptools>=77", "cmake>=3.22"]
