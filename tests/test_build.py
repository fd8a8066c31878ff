"""setup.py and CMakeLists.txt: the contents of a wheel with and without the tools for the native ops."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from reserve_kernels import native

ROOT = Path(__file__).resolve().parents[1]
PARTS = ["CMakeLists.txt", "LICENSE", "README.md", "csrc", "kernels", "pyproject.toml", "reserve", "setup.py"]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of the build's inputs, so that a build leaves nothing behind in the checkout."""
    copy = tmp_path_factory.mktemp("build") / "source"
    copy.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy(ROOT / part, copy)
    return copy


def build_wheel(source: Path, **environment: str) -> tuple[list[str], str, Path]:
    """The names in the wheel, the build's output, and the wheel. Not isolated, which would need a network."""
    pytest.importorskip("setuptools", minversion="77")
    command = [sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "--no-build-isolation", "--no-index"]
    environ = os.environ | {"RESERVE_CUDA": "0"} | environment
    folder = Path(tempfile.mkdtemp(dir=source.parent))
    done = subprocess.run([*command, "-w", folder, source], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist(), done.stdout + done.stderr, wheel


@pytest.mark.skipif(shutil.which("cmake") is None or shutil.which("c++") is None, reason="no CMake or C++ compiler")
def test_a_wheel_holds_a_library_that_loads(source, tmp_path):
    # Not optimised, which saves most of the compiler's time and does not change what is checked.
    names, _, wheel = build_wheel(source, CMAKE_BUILD_TYPE="Debug")
    assert wheel.name.split("-")[2:4] == ["py3", "none"]
    assert f"reserve_kernels/{native.LIBRARY}" in names
    with zipfile.ZipFile(wheel) as archive:
        library = native.NativeLibrary(Path(archive.extract(f"reserve_kernels/{native.LIBRARY}", tmp_path)))
    assert library.has_isa("baseline")
    assert not library.has_cuda


@pytest.fixture(scope="module")
def wheel_without_tools(source, tmp_path_factory) -> tuple[list[str], str, Path]:
    # As a clean checkout: a build leaves its library behind.
    shutil.rmtree(source / "build", ignore_errors=True)
    return build_wheel(source, PATH=str(tmp_path_factory.mktemp("bin")))


def test_a_wheel_holds_every_file_of_both_packages_and_nothing_else(source, wheel_without_tools):
    """A folder without __init__.py, or a kind of data file that nobody listed, would be left out without a word."""
    folders = {"kernels": "reserve_kernels", "reserve": "reserve"}
    wanted = {
        (package / path.relative_to(source / folder)).as_posix()
        for folder, package in ((name, Path(target)) for name, target in folders.items())
        for path in (source / folder).rglob("*")
        if path.is_file() and path.suffix != ".so"
    }
    names = {name for name in wheel_without_tools[0] if ".dist-info/" not in name}
    assert names == wanted


def test_without_tools_a_wheel_says_so_in_one_line_and_holds_no_library(wheel_without_tools):
    names, output, _ = wheel_without_tools
    assert not [name for name in names if name.endswith(".so")]
    (line,) = [line for line in output.splitlines() if "native ops left out" in line]
    assert line.strip() == "reserve: native ops left out (CMake was not found); the ops run in PyTorch"


def test_building_does_not_require_torch():
    # Isolated builds would download it. CMake comes as a package, so that a compiler is all a machine needs.
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert requires == ["setuptools>=77", "cmake>=3.22"]


needs_cmake = pytest.mark.skipif(shutil.which("cmake") is None, reason="no CMake")


@needs_cmake
@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("12.0.76", "80-real;90a-real;80-virtual"),
        ("12.7.1", "80-real;90a-real;80-virtual"),
        ("12.8.61", "80-real;90a-real;100-real;80-virtual"),
        ("13.0.88", "80-real;90a-real;100-real;80-virtual"),
    ],
)
def test_gpus_are_those_that_the_compiler_supports(tmp_path, version, expected):
    script = tmp_path / "print.cmake"
    script.write_text(
        f'include("{ROOT}/csrc/cuda_architectures.cmake")\n'
        f'reserve_cuda_architectures({version} found)\nmessage("${{found}}")\n'
    )
    done = subprocess.run(["cmake", "-P", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == expected


@needs_cmake
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc here")
@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("-DCMAKE_CUDA_COMPILER=NOTFOUND", "80-real;90a-real;.*80-virtual"),  # the cache of a run without nvcc
        ("-DCMAKE_CUDA_ARCHITECTURES=86-real", "86-real"),
    ],
    ids=["found later", "named"],
)
def test_configuring_uses_a_compiler_found_later_and_the_named_gpus(tmp_path, option, expected):
    command = ["cmake", "-S", ROOT, "-B", tmp_path, "-DRESERVE_CUDA=ON"]
    # The second run reads the first one's cache.
    for options in ([option], []):
        done = subprocess.run([*command, *options], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert re.search(f"CUDA architectures: {expected}\n", done.stdout), done.stdout
