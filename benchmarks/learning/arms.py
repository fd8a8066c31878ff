"""The arms of the comparison: pretraining tasks that differ in their objective alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.learning.audio_off import AudioOff
from benchmarks.learning.mask_lm import MaskLm, MaskLmReserve
from reserve.config import TrainConfig
from reserve.data.collection import PartSet
from reserve.data.prepare import recorded_stores
from reserve.data.tokenizer import Tokenizer
from reserve.tasks.pretrain.task import Pretrain

CONTRASTIVE, MASK_LM, AUDIO_OFF = "contrastive span", "mask LM", "audio off"
_UNSEEN = 0.05
"""What a token that no training video has counts."""


@dataclass(frozen=True)
class _Prepared(Pretrain):
    """Pretraining on videos that are prepared in the folder `prepared`, once for all runs."""

    prepared: Path = Path()

    def prepare(self, run: Path, config: TrainConfig) -> None: ...

    def training_set(self, run: Path, config: TrainConfig) -> Any:
        return super().training_set(self.prepared, config)


@dataclass(frozen=True)
class _MaskLm(_Prepared, MaskLm):
    """Its vocabulary's bias starts at the frequencies of the training words.

    Learnt from zero, they take longer than a short run has: Adam moves a bias by no more than its rate a step, and the
    tied embedding stands in for it meanwhile, which spoils it as an input.
    """

    def build_model(self) -> MaskLmReserve:
        model = super().build_model()
        counts = token_counts(self.prepared, self.model.vocab_size)
        with torch.no_grad():
            model.token_bias.copy_(((counts + _UNSEEN) / (counts + _UNSEEN).sum()).log())
        return model


def token_counts(prepared: Path, vocabulary: int) -> torch.Tensor:
    """How often each token occurs in the words of prepared videos, float32 [vocabulary]."""
    tokenizer = Tokenizer.load(None)
    part = PartSet.of_stores(recorded_stores(prepared)).parts[0].open()
    texts = (text for video in range(len(part.segment_counts())) for text in part.texts(video))
    ids = [token for text in texts for token in tokenizer.encode_plain(text)]
    return torch.bincount(torch.tensor(ids, dtype=torch.int64), minlength=vocabulary).float()


@dataclass(frozen=True)
class _AudioOff(_Prepared, AudioOff): ...


ARMS: dict[str, type[_Prepared]] = {CONTRASTIVE: _Prepared, MASK_LM: _MaskLm, AUDIO_OFF: _AudioOff}
"""By the name that tables and plots have for it."""
