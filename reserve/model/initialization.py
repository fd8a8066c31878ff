"""The reference's initialisation (SPEC 4).

Linear kernels are truncated normals. In the attention pools the released code leaves flax's default, LeCun's normal
with a standard deviation of 1 / sqrt(hidden).
"""

from __future__ import annotations

import math

import torch
from torch import nn

from reserve.model.transformer import AttentionPool

# Standard deviation of a unit normal truncated at two sigma; flax divides by it to keep LeCun's variance.
_TRUNCATED_STD = 0.87962566103423978


def _truncated_normal(weight: torch.Tensor, std: float) -> None:
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


@torch.no_grad()
def initialize(model: nn.Module, init_scale: float) -> None:
    """Initialises all weights but the temperatures from torch's default generator, in place.

    `init_scale` multiplies the kernels outside the attention pools.
    """
    pooling = {m for pool in model.modules() if isinstance(pool, AttentionPool) for m in pool.children()}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            fan_in = module.in_features
            if module in pooling:
                std = 1 / (math.sqrt(fan_in) * _TRUNCATED_STD)
            else:
                std = init_scale * min(18 / fan_in, 0.02) / math.sqrt(2)
            _truncated_normal(module.weight, std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            if module.embedding_dim <= 768:
                nn.init.normal_(module.weight, std=0.02)
            else:
                nn.init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
        elif name.endswith("encoder") and hasattr(module, "cls"):
            nn.init.normal_(module.cls, std=0.02)
