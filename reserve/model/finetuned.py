"""A finetuned model: the encoders that its task needs, and a linear head on the joint output (SPEC 10.2)."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import nn
from torch.nn import functional as F

from reserve.batch.inputs import ModelInputs
from reserve.config import FinetunedConfig, ModelConfig
from reserve.model.initialization import is_undrawn
from reserve.model.merlot_reserve import MerlotReserve
from reserve_kernels.precision import autocast_off

PROJ_STD = 0.01


class FinetunedReserve(MerlotReserve):
    """MERLOT Reserve with `proj`, a linear layer without bias, on the joint output.

    It has no span encoder and no pretraining head, and no audio encoder unless `config.with_audio`: `scores` is what it
    is for. `from_pretrained` also takes the folder of a whole pretrained model; `proj` then starts at random.
    """

    config_class = FinetunedConfig
    only_parameters = True
    config: FinetunedConfig

    def __init__(self, config: FinetunedConfig) -> None:
        super().__init__(config)
        if is_undrawn():  # not the trunk, whose weights come next; they may lack the head
            self._draw_proj()

    def _make_parts(self, config: ModelConfig) -> None:
        assert isinstance(config, FinetunedConfig)
        super()._make_parts(config)
        del self.span_encoder, self.head
        if not config.with_audio:
            del self.audio_encoder
        self.proj = nn.Linear(config.hidden_size, config.outputs, bias=False)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self._draw_proj()

    def _draw_proj(self) -> None:
        nn.init.normal_(self.proj.weight, std=PROJ_STD)

    def scores(self, inputs: ModelInputs, rows: torch.Tensor) -> torch.Tensor:
        """What the head gives at `rows` int64 [n] of the packed joint sequence: float32 [n, outputs]."""
        joint = self(inputs).joint[rows]
        # As the loss, in float32: it costs nothing, and close answers stay apart.
        with autocast_off(joint.device):
            weight = self.proj.weight
            return F.linear(joint.to(weight.dtype), weight)

    def embed_text_spans(self, spans: Any) -> NoReturn:
        """Raises TypeError: a finetuned model has no span encoder."""
        raise TypeError("a FinetunedReserve has no span encoder; use the pretrained MerlotReserve")

    def embed_video(self, *inputs: Any) -> NoReturn:
        """Raises TypeError: a finetuned model has no pretraining head."""
        raise TypeError("a FinetunedReserve has no pretraining head; use the pretrained MerlotReserve")
