"""Runs tests/kernels/interpreted in a pytest for each file, where Triton interprets its kernels."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).parent / "interpreted"
FILES = {file.stem.removeprefix("test_"): [file] for file in sorted(FOLDER.glob("test_*.py"))}
# Too quick for a process of its own.
FILES["quick_gelu"] += FILES.pop("interpreter_bf16")


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
def test_interpreted_kernels(files):
    # Without the variables by which the surrounding pytest and its workers recognise their children.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", *map(str, files)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
