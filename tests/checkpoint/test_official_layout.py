"""The official layout covers the model exactly, with the sizes of SPEC 4."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from reserve.checkpoint.official_layout import parameter_entries
from reserve.config import ModelConfig
from reserve.model.merlot_reserve import MerlotReserve
from reserve.model.weights import empty_model

LARGE = ModelConfig(hidden_size=1024, vit_num_layers=24, joint_num_layers=24)


@pytest.mark.parametrize(("config", "count"), [(ModelConfig(), 316_412_163), (LARGE, 853_117_955)])
def test_parameter_counts_of_base_and_large(config: ModelConfig, count: int) -> None:
    entries = parameter_entries(config)
    assert sum(math.prod(entry.shape) for entry in entries) == count
    parameters = dict(empty_model(lambda: MerlotReserve(config)).named_parameters())
    assert {entry.torch: math.prod(entry.shape) for entry in entries} == {k: v.numel() for k, v in parameters.items()}
    assert len({entry.flax for entry in entries}) == len(entries)


def test_both_ways_give_back_every_entry() -> None:
    config = ModelConfig(64, 20, 1, 4, audio_num_layers=1, span_num_layers=1, joint_num_layers=1)
    parameters = dict(empty_model(lambda: MerlotReserve(config)).named_parameters())
    for entry in parameter_entries(config):
        array = np.arange(math.prod(entry.shape), dtype=np.float32).reshape(entry.shape)
        value = entry.to_torch(array, parameters[entry.torch].shape)
        np.testing.assert_array_equal(entry.to_flax(value), array)
        if entry.kernel:
            # flax has [in, …, out], torch [out, in].
            assert torch.equal(value[:, 0], torch.from_numpy(array.reshape(parameters[entry.torch].shape[::-1])[0]))
