"""MERLOT Reserve: data, model and trainer on top of the fused ops of `reserve_kernels`.

    >>> import torch, reserve
    >>> model = reserve.MerlotReserve(reserve.ModelConfig(hidden_size=64, joint_num_layers=1, span_num_layers=1,
    ...     vit_num_layers=1, audio_num_layers=1))
    >>> model.embed_text_spans(torch.tensor([[265, 400, 1000]])).shape
    torch.Size([1, 64])

`MerlotReserve.from_pretrained(folder)` loads a run's checkpoint, `load_official(path, "base")` a released one, and
`open_video(path)` reads a video. `ask(video, question, answers, model=weights)` ranks answers to a question about one.
`FinetunedReserve` is what finetuned tasks train.
Importing this package imports nothing else: each name below is imported when it is first used.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reserve.checkpoint.official import load_official, save_official
    from reserve.config import DataConfig, FinetunedConfig, ModelConfig
    from reserve.data.tokenizer import Tokenizer
    from reserve.data.video import open_video
    from reserve.errors import CheckpointError
    from reserve.model.finetuned import FinetunedReserve
    from reserve.model.merlot_reserve import MerlotReserve
    from reserve.tasks.ask import ask

__all__ = [
    "CheckpointError",
    "DataConfig",
    "FinetunedConfig",
    "FinetunedReserve",
    "MerlotReserve",
    "ModelConfig",
    "Tokenizer",
    "ask",
    "load_official",
    "open_video",
    "save_official",
]

_HOMES = {
    "CheckpointError": "reserve.errors",
    "DataConfig": "reserve.config",
    "FinetunedConfig": "reserve.config",
    "FinetunedReserve": "reserve.model.finetuned",
    "MerlotReserve": "reserve.model.merlot_reserve",
    "ModelConfig": "reserve.config",
    "Tokenizer": "reserve.data.tokenizer",
    "ask": "reserve.tasks.ask",
    "load_official": "reserve.checkpoint.official",
    "open_video": "reserve.data.video",
    "save_official": "reserve.checkpoint.official",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        try:
            return version("merlot-reserve")
        except PackageNotFoundError:
            return "unknown"  # a source tree that was never installed
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), "__version__", *__all__})
