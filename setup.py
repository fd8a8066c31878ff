"""Builds csrc/ through CMakeLists.txt into the shared library that kernels/native.py loads.

Everything else is in pyproject.toml. Environment:
    RESERVE_NATIVE  "auto" (default: built where there are CMake and a C++ compiler), "1" (their absence is an error) or
                    "0" (left out)
    RESERVE_CUDA    "auto" (default: CUDA ops where nvcc works), "1" (its absence is an error) or "0" (left out)
    RESERVE_GLIBC   a version such as "2.28": the library runs on every Linux from that glibc on, and the wheel's tag
                    says so. It needs the package ziglang. Default: this machine's own. `make wheel` sets it.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
LIBRARY = "libreserve_native.so"
GLIBC = os.environ.get("RESERVE_GLIBC", "")
COMPILERS = ("c++", "g++", "clang++")


if GLIBC and not re.fullmatch(r"2\.\d+", GLIBC):
    raise SystemExit(f"RESERVE_GLIBC must be a version such as 2.28; got {GLIBC!r}")


def setting(name: str) -> str:
    value = os.environ.get(name, "auto").lower()
    if value not in ("auto", "1", "0"):
        raise SystemExit(f"{name} must be auto, 1 or 0; got {value!r}")
    return value


def missing_tool() -> str | None:
    """What the build needs and does not find, or None."""
    if shutil.which("cmake") is None:
        return "CMake"
    compiler = os.environ.get("CXX")
    found = shutil.which(compiler.split()[0]) if compiler else any(map(shutil.which, COMPILERS))
    return None if found else "a C++ compiler"


class BuildNative(build_ext):
    """Runs CMake where setuptools would compile an extension module."""

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split(".")[:-1]) / LIBRARY)

    def build_extension(self, ext: Extension) -> None:
        wanted = setting("RESERVE_NATIVE")
        reason = "RESERVE_NATIVE=0" if wanted == "0" else missing_tool()
        if reason is not None:
            if wanted == "1":
                raise SystemExit(f"RESERVE_NATIVE=1, but {reason} was not found")
            reason = reason if wanted == "0" else f"{reason} was not found"
            print(f"reserve: native ops left out ({reason}); the ops run in PyTorch", file=sys.stderr)
            return
        build = Path(self.build_temp).resolve() / "native"
        cuda = {"auto": "AUTO", "1": "ON", "0": "OFF"}[setting("RESERVE_CUDA")]
        generator = ["-G", "Ninja"] if shutil.which("ninja") else []
        configure = ["cmake", "-S", str(ROOT), "-B", str(build), *generator, f"-DRESERVE_CUDA={cuda}"]
        # Given when empty too: CMake remembers.
        configure += [f"-DRESERVE_GLIBC={GLIBC}", f"-DRESERVE_ZIG={sys.executable};-m;ziglang"]
        jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", str(os.cpu_count() or 1))
        try:
            subprocess.run(configure, check=True)
            subprocess.run(["cmake", "--build", str(build), "--parallel", jobs], check=True)
        except subprocess.CalledProcessError as error:
            raise SystemExit(
                "the native ops did not compile (above); RESERVE_NATIVE=0 installs without them, RESERVE_CUDA=0 "
                "without their CUDA part"
            ) from error
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(build / LIBRARY, target)


class Wheel(bdist_wheel):
    """The library is loaded by ctypes, so one wheel serves every Python 3 of the platform."""

    def get_tag(self) -> tuple[str, str, str]:
        platform = super().get_tag()[2]
        if GLIBC:
            platform = platform.replace("linux", f"manylinux_{GLIBC.replace('.', '_')}", 1)
        return "py3", "none", platform


def packages() -> list[str]:
    """All packages, those in kernels/ under the name that they are imported by."""
    ops = (name.removeprefix("kernels") for name in find_packages(str(ROOT), include=["kernels", "kernels.*"]))
    return [*(f"reserve_kernels{name}" for name in ops), *find_packages(str(ROOT), include=["reserve", "reserve.*"])]


setup(
    packages=packages(),
    # Optional: setuptools then accepts that there is no file where the library was left out.
    ext_modules=[Extension("reserve_kernels.native_library", sources=[], optional=True)],
    cmdclass={"build_ext": BuildNative, "bdist_wheel": Wheel},
)
