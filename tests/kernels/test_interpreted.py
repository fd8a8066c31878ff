"""Runs tests/kernels/interpreted in a pytest for each op, where Triton interprets its kernels."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reserve_kernels.registry import OPS

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).parent / "interpreted"
FILES = {op.folder: [FOLDER / f"test_{op.folder}.py"] for op in OPS if op.triton}
next(iter(FILES.values())).append(FOLDER / "test_interpreter_bf16.py")


def test_every_file_runs():
    assert sorted(FOLDER.glob("test_*.py")) == sorted(file for files in FILES.values() for file in files)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
@pytest.mark.parametrize("op", FILES)
def test_interpreted_kernels(op):
    # Without the variables by which the surrounding pytest and its workers recognise their children.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", *map(str, FILES[op])]
    done = subprocess.run(
        command, cwd=ROOT, env=environment | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
