"""Installs a distribution into a new virtual environment, and runs Python there without compilers and variables.

By a .pth file the new environment sees the packages of this one, such as torch, but not this checkout.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path


class CleanInstall:
    """`distribution` is a wheel or a source distribution; nothing is downloaded.

    Raises CalledProcessError with pip's output if it cannot be installed.
    """

    def __init__(self, folder: Path, distribution: Path, **environment: str) -> None:
        self._folder = folder / "venv"
        venv.create(self._folder, with_pip=False, symlinks=True)
        self.python = self._folder / "bin" / "python"
        outer = sysconfig.get_path("purelib")
        (self._site / "outer.pth").write_text(f"{outer}\n")
        # The installer is this environment's own; its packages stay behind those of the new one.
        command = [sys.executable, "-m", "pip", "--python", self.python, "install", "--no-deps", "--no-index"]
        command += ["--no-build-isolation", "--disable-pip-version-check", "--ignore-installed", distribution]
        self.output = self._run(command, os.environ | environment)

    @property
    def _site(self) -> Path:
        (site,) = (self._folder / "lib").glob("python*/site-packages")
        return site

    def run(self, *arguments: str) -> str:
        """What Python prints when it runs `arguments` there, without anything on the PATH."""
        return self._run([self.python, *arguments], {"PATH": str(self._folder / "bin"), "OMP_NUM_THREADS": "1"})

    def _run(self, command: list, environment: dict[str, str]) -> str:
        done = subprocess.run(command, env=environment, cwd=self._folder, capture_output=True, text=True, timeout=500)
        if done.returncode != 0:
            raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout
