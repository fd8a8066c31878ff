"""Which parameters decay, in pretraining and in finetuning (SPEC 9)."""

from __future__ import annotations

from typing import Any

from reserve.checkpoint.official_layout import parameter_entries
from reserve.model.pretrained import Pretrained

FINETUNING_DECAY_SIZE = 4096
"""Tensors of at most so many numbers do not decay in finetuning."""


def parameter_groups(model: Pretrained, weight_decay: float, *, finetuning: bool = False) -> list[dict[str, Any]]:
    """Two groups of the trainable parameters, with and without decay.

    Tensors with more than one axis decay, as the official layout shapes them: that includes the biases of qkv and of
    the pooling's queries, keys and values. Parameters that the official layout does not have, such as a task's head,
    count by their own shape. Finetuning decays only tensors of more than 4096 numbers.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    official = {entry.torch: entry.shape for entry in parameter_entries(model.config)}
    # In the official layout's order, which the optimiser states of existing checkpoints have.
    names = [name for name in official if name in parameters]
    names += [name for name in parameters if name not in official]
    groups: dict[bool, list[Any]] = {True: [], False: []}
    for name in names:
        parameter = parameters[name]
        axes = len(official.get(name, parameter.shape))
        large = not finetuning or parameter.numel() > FINETUNING_DECAY_SIZE
        groups[axes > 1 and large].append(parameter)
    return [
        {"params": groups[True], "weight_decay": weight_decay},
        {"params": groups[False], "weight_decay": 0.0},
    ]
