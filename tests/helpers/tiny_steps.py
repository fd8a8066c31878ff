"""Pretraining small enough for tests: a configuration of the tiny model, and random batches for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from reserve.config import Config, DataConfig, OptimizerConfig, TrainConfig
from reserve.tasks.pretrain.batch import PretrainBatch
from reserve.tasks.pretrain.dataset import collate
from reserve.tasks.pretrain.random_examples import RandomExamples
from tests.helpers.tiny import tiny

TINY_RUN = Config(
    data=DataConfig(
        num_segments=4,
        num_segment_groups=2,
        lang_seq_len=40,
        seq_len=64,
        text_span_budget=4,
        num_text_spans_to_include=6,
    ),
    model=tiny(vocab_size=50, audio_patch_size=5),
    optimizer=OptimizerConfig(learning_rate=1e-3, num_train_steps=10, num_warmup_steps=1),
    train=TrainConfig(batch_size=2, precision="float32", compile="none", num_workers=0),
)


def tiny_run(**train: Any) -> Config:
    """TINY_RUN with some settings of the section train changed."""
    return replace(TINY_RUN, train=replace(TINY_RUN.train, **train))


def tiny_batch(examples: int = 2, *, seed: int = 0) -> PretrainBatch:
    """Random examples as a batch on the CPU; batches of other seeds have other numbers of tokens."""
    dataset = RandomExamples(examples, TINY_RUN.data, TINY_RUN.model, seed=seed)
    return collate([dataset[0, index] for index in range(examples)], TINY_RUN.data, TINY_RUN.model)
