"""Random examples have the sizes of real ones and depend only on their seed."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from reserve.config import Config, DataConfig, ModelConfig
from reserve.data.loader import BatchSampler, load_batches
from reserve.tasks.pretrain.dataset import collate
from reserve.tasks.pretrain.random_examples import RandomExamples

SMALL = Config(
    data=DataConfig(num_segments=8, lang_seq_len=160, seq_len=240, text_span_budget=8, num_text_spans_to_include=18),
    model=ModelConfig(hidden_size=64, output_grid=(4, 6), audio_patch_size=5),
)


def examples(size: int = 4, seed: int = 0) -> RandomExamples:
    return RandomExamples(size, SMALL.data, SMALL.model, seed=seed)


def test_content_depends_on_seed_and_index_alone():
    one, other_epoch, other_seed = examples()[0, 1], examples()[7, 1], examples(seed=1)[0, 1]
    np.testing.assert_array_equal(one.images, other_epoch.images)
    assert (one.images != other_seed.images).any()
    assert (one.images != examples()[0, 2].images).any()


def test_masking_depends_on_the_epoch():
    one, again, other = (examples()[epoch, 1].text.text_spans for epoch in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_base_sequences_have_the_lengths_of_pretraining():
    base = Config()
    batch = collate([RandomExamples(2, base.data, base.model)[0, i] for i in range(2)], base.data, base.model)
    lengths = batch.joint.cu_seqlens.diff()
    assert lengths.max() == base.data.seq_len
    assert batch.images.shape == (2, 16, 192, 320, 3)
    assert batch.audio_clips.shape == (2, 48, 60, 65)


def test_the_trainers_loader_takes_them():
    loader = load_batches(
        examples(), BatchSampler(4, 2), partial(collate, data=SMALL.data, model=SMALL.model), num_workers=0
    )
    batch = next(iter(loader))
    assert len(batch) == 2
    assert torch.isfinite(batch.audio_clips).all()


def test_no_examples_are_refused():
    with pytest.raises(ValueError, match="size must be at least 1; got 0"):
        examples(0)
