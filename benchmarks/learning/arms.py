"""The arms of the comparison: pretraining tasks that differ in their objective alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.learning.audio_off import AudioOff
from benchmarks.learning.mask_lm import MaskLm
from reserve.config import TrainConfig
from reserve.tasks.pretrain.task import Pretrain

CONTRASTIVE, MASK_LM, AUDIO_OFF = "contrastive span", "mask LM", "audio off"


@dataclass(frozen=True)
class _Prepared(Pretrain):
    """Pretraining on videos that are prepared in the folder `prepared`, once for all runs."""

    prepared: Path = Path()

    def prepare(self, run: Path, config: TrainConfig) -> None: ...

    def training_set(self, run: Path, config: TrainConfig) -> Any:
        return super().training_set(self.prepared, config)


@dataclass(frozen=True)
class _MaskLm(_Prepared, MaskLm): ...


@dataclass(frozen=True)
class _AudioOff(_Prepared, AudioOff): ...


ARMS: dict[str, type[_Prepared]] = {CONTRASTIVE: _Prepared, MASK_LM: _MaskLm, AUDIO_OFF: _AudioOff}
"""By the name that tables and plots have for it."""
