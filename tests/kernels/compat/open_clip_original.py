"""open_clip's losses, from its file: importing the package imports torchvision, which the tests do without."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from types import ModuleType

import pytest


def open_clip_loss() -> ModuleType:
    """The module open_clip.loss. The test is skipped if open_clip_torch is not installed."""
    try:
        path = importlib.metadata.distribution("open_clip_torch").locate_file("open_clip/loss.py")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("open_clip_torch is not installed")
    spec = importlib.util.spec_from_file_location("open_clip_loss", str(path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
