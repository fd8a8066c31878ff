"""Importing the packages is cheap: no video, text, plotting or GPU library, and no GPU."""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    *("av", "triton", "PIL", "tokenizers", "msgpack", "safetensors", "huggingface_hub", "librosa", "scipy", "yaml"),
    *("jsonargparse", "rich", "tensorboard", "zstandard", "pysubs2", "webvtt", "espeakng_loader", "matplotlib"),
    *("jinja2", "xformers", "flash_attn", "nvidia"),
)
MODULES = ["reserve", "reserve_kernels", "reserve.config", "reserve.checkpoint.official", "reserve.train.optimizer"]


def run(code: str) -> str:
    root = Path(__file__).resolve().parents[1]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("module", MODULES)
def test_import_brings_in_nothing_heavy(module: str) -> None:
    code = f"""
import sys
import torch
before = {{name.split(".")[0] for name in sys.modules}}
import {module}
print(*sorted(({{name.split(".")[0] for name in sys.modules}} - before) & set({HEAVY!r})))
assert not torch.cuda.is_initialized()
"""
    assert run(code).split() == []


def test_importing_the_top_package_imports_not_even_torch() -> None:
    assert run("import sys, reserve; print('torch' in sys.modules, 'numpy' in sys.modules)").split() == ["False"] * 2


def test_every_public_name_is_found_and_listed() -> None:
    code = "import reserve; print(*(n for n in reserve.__all__ if not (n in dir(reserve) and getattr(reserve, n))))"
    assert run(code).split() == []


@pytest.mark.parametrize("package", ["reserve", "reserve_kernels"])
def test_unknown_name_is_an_attribute_error(package: str) -> None:
    with pytest.raises(AttributeError, match="load_everything"):
        _ = importlib.import_module(package).load_everything


@pytest.mark.parametrize("package", ["reserve", "reserve_kernels"])
def test_the_version_is_that_of_the_distribution(package: str) -> None:
    assert importlib.import_module(package).__version__ == importlib.metadata.version("merlot-reserve")
