"""open_clip's losses, from their file: importing the package imports torchvision, which they do without."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
from types import ModuleType

from reserve_kernels.bench.interleaved import Missing


@functools.cache
def open_clip_loss() -> ModuleType:
    """The module open_clip.loss. Raises Missing if open_clip_torch is not installed."""
    try:
        path = importlib.metadata.distribution("open_clip_torch").locate_file("open_clip/loss.py")
    except importlib.metadata.PackageNotFoundError as error:
        raise Missing("open_clip_torch is not installed") from error
    spec = importlib.util.spec_from_file_location("open_clip_loss", str(path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
