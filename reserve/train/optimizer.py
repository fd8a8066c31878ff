"""Which parameters decay, in pretraining and in finetuning (SPEC 9). The optimiser itself is an op."""

from __future__ import annotations

from typing import Any

import torch

from reserve.model.merlot_reserve import MerlotReserve
from reserve.model.official_layout import parameter_entries

FINETUNING_DECAY_SIZE = 4096


def parameter_groups(model: MerlotReserve, weight_decay: float, *, finetuning: bool = False) -> list[dict[str, Any]]:
    """Two groups, with and without decay: it applies to tensors of more than one axis in the official layout.

    That includes the biases of qkv and of the pooling's queries, keys and values. Finetuning decays only tensors of
    more than 4096 numbers.
    """
    parameters = dict(model.named_parameters())
    groups: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
    for entry in parameter_entries(model.config):
        parameter = parameters[entry.torch]
        large = not finetuning or parameter.numel() > FINETUNING_DECAY_SIZE
        groups[len(entry.shape) > 1 and large].append(parameter)
    return [
        {"params": groups[True], "weight_decay": weight_decay},
        {"params": groups[False], "weight_decay": 0.0},
    ]
