"""Pretraining on random examples, whose global batches are the same however many ranks and micro-batches share them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from reserve.config import Config
from reserve.tasks.pretrain.random_examples import RandomPretrain
from tests.helpers.tiny_steps import TINY_RUN

EVERY_SPAN = replace(TINY_RUN.data, num_text_spans_to_include=TINY_RUN.data.num_text_spans)
"""All spans are predicted: a choice among those of a device's share would depend on the number of devices."""


def random_run(batch_size: int = 8, steps: int = 20, **train: Any) -> tuple[RandomPretrain, Config]:
    """A task whose loss falls within 20 steps, and its settings: in float32, a line of metrics for every step."""
    train = {"log_every": 1, "precision": "float32", "compile": "none", "num_workers": 0, "device": "cpu"} | train
    config = replace(
        TINY_RUN,
        data=EVERY_SPAN,
        model=replace(TINY_RUN.model, init_scale=5.0, init_log_scale=1.5),
        optimizer=replace(TINY_RUN.optimizer, learning_rate=3e-3, num_train_steps=steps),
        train=replace(TINY_RUN.train, batch_size=batch_size, **train),
    )
    return RandomPretrain(data=config.data, model=config.model), config
