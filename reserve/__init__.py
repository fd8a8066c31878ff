"""MERLOT Reserve: data, model and trainer on top of the fused ops of `reserve_kernels`.

    import reserve

    model = reserve.load_official("base", reserve.ModelConfig())

Importing this package imports nothing else: the names below are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reserve.config import DataConfig, ModelConfig
    from reserve.data.tokenizer import Tokenizer
    from reserve.model.checkpoint import load_official, save_official
    from reserve.model.errors import CheckpointError
    from reserve.model.merlot_reserve import MerlotReserve

__all__ = [
    "CheckpointError",
    "DataConfig",
    "MerlotReserve",
    "ModelConfig",
    "Tokenizer",
    "load_official",
    "save_official",
]

_HOMES = {
    "CheckpointError": "reserve.model.errors",
    "DataConfig": "reserve.config",
    "MerlotReserve": "reserve.model.merlot_reserve",
    "ModelConfig": "reserve.config",
    "Tokenizer": "reserve.data.tokenizer",
    "load_official": "reserve.model.checkpoint",
    "save_official": "reserve.model.checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
