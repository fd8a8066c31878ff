"""Importing the packages is cheap: it loads no video, text, plotting or GPU library and initialises no GPU."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    *("av", "triton", "PIL", "tokenizers", "msgpack", "safetensors", "huggingface_hub", "librosa", "scipy", "yaml"),
    *("jsonargparse", "rich", "tensorboard", "zstandard", "chardet", "espeakng_loader", "matplotlib"),
    *("jinja2", "xformers", "flash_attn", "nvidia"),
)
MODULES = ["reserve", "reserve_kernels", "reserve.config", "reserve.checkpoint.official", "reserve.train.optimizer"]
IMPORT_ALL = f"""
import importlib, json, sys
import torch
known = {{name.split(".")[0] for name in sys.modules}}
heavy = {{}}
for module in {MODULES!r}:
    importlib.import_module(module)
    loaded = {{name.split(".")[0] for name in sys.modules}}
    heavy[module] = sorted((loaded - known) & set({HEAVY!r}))
    known |= loaded
import reserve
missing = [n for n in reserve.__all__ if not (n in dir(reserve) and getattr(reserve, n))]
print(json.dumps({{"heavy": heavy, "cuda": torch.cuda.is_initialized(), "missing": missing}}))
"""
"""Prints the heavy packages that each module is the first to import, and public names that do not resolve."""


def run(code: str) -> str:
    root = Path(__file__).resolve().parents[1]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def imported() -> dict:
    """The output of IMPORT_ALL. One process imports all modules, since importing torch takes a second."""
    return json.loads(run(IMPORT_ALL))


@pytest.mark.parametrize("module", MODULES)
def test_import_brings_in_nothing_heavy(module: str, imported: dict) -> None:
    assert imported["heavy"][module] == []


def test_importing_everything_leaves_the_gpu_alone(imported: dict) -> None:
    assert not imported["cuda"]


def test_importing_the_top_package_imports_not_even_torch() -> None:
    assert run("import sys, reserve; print('torch' in sys.modules, 'numpy' in sys.modules)").split() == ["False"] * 2


def test_every_public_name_is_found_and_listed(imported: dict) -> None:
    assert imported["missing"] == []


@pytest.mark.parametrize("package", ["reserve", "reserve_kernels"])
def test_unknown_name_is_an_attribute_error(package: str) -> None:
    with pytest.raises(AttributeError, match="load_everything"):
        _ = importlib.import_module(package).load_everything


@pytest.mark.parametrize("package", ["reserve", "reserve_kernels"])
def test_the_version_is_that_of_the_distribution(package: str) -> None:
    assert importlib.import_module(package).__version__ == importlib.metadata.version("merlot-reserve")
