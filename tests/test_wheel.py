"""What `make wheel` makes, installed where there is no compiler; without it, the same for a wheel without optimisation.

RESERVE_DIST is the folder with a wheel and a source distribution to check. Without it they are built here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from reserve_kernels import native
from tests.helpers.clean_install import CleanInstall

ROOT = Path(__file__).resolve().parents[1]
DIST = os.environ.get("RESERVE_DIST")
if DIST is None and (shutil.which("cmake") is None or shutil.which("c++") is None):
    pytest.skip("no CMake or C++ compiler", allow_module_level=True)
released = pytest.mark.skipif(DIST is None, reason="needs RESERVE_DIST, which `make wheel` sets")
# Not optimised, which saves most of the compiler's time and does not change what is checked.
QUICK = {"RESERVE_CUDA": "0", "RESERVE_NATIVE": "1", "CMAKE_BUILD_TYPE": "Debug"}

EVERY_OP = (ROOT / "tests" / "container" / "every_op.py").read_text("utf-8")


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """A folder with a source distribution, and a wheel that was made of it."""
    if DIST is not None:
        return Path(DIST).resolve()
    folder = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source") / "reserve"
    # Without what the checkout has built, and not in it: a build leaves files behind.
    left_out = shutil.ignore_patterns(".*", "*.so", "build", "dist", "runs", "__pycache__", "*.egg-info", "results")
    shutil.copytree(ROOT, source, ignore=left_out)
    _backend("build_sdist", folder, source)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(source.parent, filter="data")
    _backend("build_wheel", folder, source.parent / archive.name.removesuffix(".tar.gz"))
    return folder


def _backend(hook: str, folder: Path, source: Path) -> None:
    """Runs a hook of the build's back end in `source`, as pip does."""
    code = f"import setuptools.build_meta as backend; backend.{hook}({str(folder)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source, env=os.environ | QUICK, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(dist) -> Path:
    (found,) = dist.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def sdist(dist) -> Path:
    (found,) = dist.glob("*.tar.gz")
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> CleanInstall:
    return CleanInstall(tmp_path_factory.mktemp("wheel"), wheel)


def check_ops(install: CleanInstall) -> None:
    found = json.loads(install.run("-c", EVERY_OP))
    assert str(install.python.parents[1]) in found["file"]
    assert found["version"] == "0.1.0"
    assert found["native"].startswith("native ops: CPU")
    # A runtime that is linked in another way could hide what the processor has.
    assert found["isa"] == [isa for isa in native.ISA if isa != "auto" and native.library().has_isa(isa)]


def test_an_installed_wheel_runs_every_op_without_a_compiler(installed):
    check_ops(installed)


def test_an_installed_wheel_has_the_command_line(installed):
    out = installed.run("-m", "reserve", "--help")
    assert "pretrain" in out


def test_an_installed_wheel_measures_this_machine(installed):
    arguments = ["bias_quick_gelu", "--quick", "--threads", "1", "--cases", "512", "--peers", "^PyTorch$"]
    out = installed.run("-m", "reserve_kernels.bench", *arguments)
    assert "stored in reserve-bench/bias_quick_gelu-cpu.json" in out


def test_a_source_distribution_builds_and_runs_every_op(sdist, tmp_path):
    check_ops(CleanInstall(tmp_path, sdist, **QUICK))


def test_a_wheel_from_the_source_distribution_has_every_file(wheel):
    """A file that the source distribution leaves out would be missing without a word."""
    tracked = subprocess.run(
        ["git", "ls-files", "kernels", "reserve"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    if not tracked:
        pytest.skip("no history: which files belong to the packages is not known")
    wanted = {re.sub("^kernels/", "reserve_kernels/", name) for name in tracked if (ROOT / name).is_file()}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == wanted | {f"reserve_kernels/{native.LIBRARY}"}


def test_a_source_distribution_has_what_the_build_reads(sdist):
    with tarfile.open(sdist) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    tracked = {path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").rglob("*.*") if path.is_file()}
    assert tracked | {"CMakeLists.txt", "setup.py", "pyproject.toml", "LICENSE", "README.md"} <= names
    assert not [name for name in names if name.startswith(("benchmarks", "docs", "runs", "tests"))]


@released
def test_the_wheel_runs_on_every_linux_from_its_glibc_on(wheel):
    out = subprocess.run(
        [sys.executable, "-m", "auditwheel", "show", wheel], capture_output=True, text=True, check=True
    ).stdout
    tag = re.search(r'platform tag: "manylinux_2_(\d+)_', " ".join(out.split()))
    named = re.search(r"-manylinux_2_(\d+)_\w+\.whl", wheel.name)
    assert tag is not None, out
    assert named is not None, wheel.name
    assert int(tag.group(1)) <= int(named.group(1)) == 28


@released
def test_the_library_asks_for_no_runtime_and_shows_its_own_functions_alone(wheel, tmp_path):
    from elftools.elf.elffile import ELFFile

    with zipfile.ZipFile(wheel) as archive:
        path = archive.extract(f"reserve_kernels/{native.LIBRARY}", tmp_path)
    with open(path, "rb") as file:
        elf = ELFFile(file)
        needed = {tag.needed for tag in elf.get_section_by_name(".dynamic").iter_tags("DT_NEEDED")}
        symbols = list(elf.get_section_by_name(".dynsym").iter_symbols())
        versions = elf.get_section_by_name(".gnu.version")
        unversioned = [
            versions.get_symbol(i)["ndx"] in ("VER_NDX_LOCAL", "VER_NDX_GLOBAL") for i in range(len(symbols))
        ]
    assert needed <= {f"lib{name}" for name in ("c.so.6", "m.so.6", "pthread.so.0", "dl.so.2", "rt.so.1")} | {
        "ld-linux-x86-64.so.2",
        "ld-linux-aarch64.so.1",
    }
    shown = {s.name for s in symbols if s["st_shndx"] != "SHN_UNDEF" and s["st_info"]["bind"] == "STB_GLOBAL"}
    assert shown
    assert {name for name in shown if not name.startswith("reserve_")} <= {"_init", "_fini"}
    # A symbol without a version is one that this glibc lacks: the loader would not find it, nor auditwheel see it.
    asked = [s.name for i, s in enumerate(symbols) if s["st_shndx"] == "SHN_UNDEF" and s.name and unversioned[i]]
    assert asked == []


@released
def test_the_wheel_is_a_few_megabytes(wheel):
    assert wheel.stat().st_size < 8 * 2**20


@released
@pytest.mark.slow
def test_a_second_build_elsewhere_is_the_same_to_the_byte(wheel, sdist, tmp_path):
    with tarfile.open(sdist) as tar:
        tar.extractall(tmp_path / "another_folder", filter="data")
    (source,) = (tmp_path / "another_folder").iterdir()
    out = tmp_path / "again"
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", out],
        cwd=source,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    assert (out / wheel.name).read_bytes() == wheel.read_bytes()
