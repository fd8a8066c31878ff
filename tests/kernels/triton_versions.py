"""The versions of Triton for which the tests compile the kernels: that of constraints.txt and that of GPU machines.

    python -m tests.kernels.triton_versions    installs those of constraints-gpu.txt in .venv/triton-VERSION

A process imports one version. To use another one, start it with `environment(version)`.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def pinned(file: str) -> str:
    """The version of Triton that a file of constraints names."""
    found = re.search(r"^triton==([\d.]+)", (ROOT / file).read_text("utf-8"), re.MULTILINE)
    assert found is not None, f"{file} names no version of triton"
    return found[1]


ON_GPU_MACHINES, IN_CI = pinned("constraints-gpu.txt"), pinned("constraints.txt")
VERSIONS = (ON_GPU_MACHINES, IN_CI)


def here() -> str:
    """The version that this process imports."""
    return importlib.metadata.version("triton")


def folder(version: str) -> Path:
    """Where `install` puts a version that is not the environment's own."""
    return ROOT / ".venv" / f"triton-{version}"


def missing(version: str) -> str | None:
    """None if a process can import `version`, otherwise the reason."""
    if version == here() or (folder(version) / "triton" / "__init__.py").is_file():
        return None
    return f"triton {version} is not in {folder(version).relative_to(ROOT)}: run make setup"


def environment(version: str) -> dict[str, str]:
    """The environment of a process that imports `version`."""
    first = [] if version == here() else [str(folder(version))]
    return os.environ | {"PYTHONPATH": os.pathsep.join([*first, *filter(None, [os.environ.get("PYTHONPATH")])])}


def install(version: str) -> str:
    """Installs `version` in its folder, unless it is there, and returns a line about it.

    Raises SystemExit if there is no package for this Python. Other systems than Linux need none.
    """
    if sys.platform != "linux":
        return f"triton {version}: not for {sys.platform}"
    if missing(version) is None:
        return f"triton {version} for the tests that compile kernels"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
    done = subprocess.run([*pip, "--no-deps", "--target", str(folder(version)), f"triton=={version}"], check=False)
    if done.returncode != 0:
        python = ".".join(str(part) for part in sys.version_info[:2])
        raise SystemExit(
            f"triton {version} cannot be installed for Python {python}. The tests compile the kernels with it, because "
            "GPU machines have it (constraints-gpu.txt). Try make PYTHON=python3.12"
        )
    return f"triton {version} for the tests that compile kernels"


if __name__ == "__main__":
    print(install(ON_GPU_MACHINES))
