"""Leaves torchaudio its Python code alone where its compiled part does not load, as PyPI's beside a torch without CUDA.

    python -m tests.helpers.torchaudio_python

Without this, importing torchaudio fails there, and so does transformers. The Python code has all that the tests use:
transforms and Kaldi's features.
"""

from __future__ import annotations

import importlib
import shutil
from importlib.util import find_spec
from pathlib import Path


def keep_python_alone() -> str:
    """What was done, in words."""
    spec = find_spec("torchaudio")
    if spec is None or spec.origin is None:
        return "torchaudio is not installed"
    try:
        importlib.import_module("torchaudio")
    except OSError:
        shutil.rmtree(Path(spec.origin).parent / "lib")
        return "torchaudio: the compiled part, which does not load here, was removed"
    return "torchaudio loads"


if __name__ == "__main__":
    print(keep_python_alone())
