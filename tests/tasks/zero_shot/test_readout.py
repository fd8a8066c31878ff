from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.zero_shot import readout
from reserve.tasks.zero_shot.readout import encode_options, option_ids, option_logits, ranked
from tests.helpers.tiny import tiny


class Recorded:
    """A tokenizer that gives recorded ids."""

    def __init__(self, ids):
        self.ids = ids

    def encode(self, text):
        return self.ids[text]


def test_options_are_cut_and_padded_as_in_the_reference(shared_dir):
    case = json.loads((shared_dir / "golden/zero_shot_text.json").read_text())
    # As long as the reference's or longer: ids beyond the length do not count.
    recorded = {
        text: [token for token in ids if token] + ([7, 8, 9] if all(ids) else [])
        for text, ids in zip(case["options"], case["option_ids"], strict=True)
    }
    assert option_ids(Recorded(recorded), case["options"]).tolist() == case["option_ids"]


def test_options_are_encoded_as_in_the_reference(golden, monkeypatch):
    monkeypatch.setattr(readout, "_BATCH", 5)
    found = encode_options(golden.model, golden.arrays["options"])
    np.testing.assert_allclose(found.numpy(), golden.arrays["label_space"], atol=2e-6)


def test_no_options_have_no_vectors():
    model = MerlotReserve(tiny())
    assert encode_options(model, np.zeros((0, 15), np.int32)).shape == (0, 64)


def test_logits_are_a_hundred_times_the_products():
    masks, options = torch.eye(2, 3), torch.tensor([[0.5, 0.1, 0], [0, 0, 1.0]])
    assert option_logits(masks, options).tolist() == [[50, 0], [pytest.approx(10), 0]]


def test_autocast_does_not_round_logits():
    masks, options = torch.tensor([[1.0, 0.001]]), torch.tensor([[1.0, 0], [1.0, 1.0]])
    with torch.autocast("cpu", torch.bfloat16):
        logits = option_logits(masks, options)
    assert logits.dtype == torch.float32
    assert logits.tolist() == [pytest.approx([100, 100.1])]


def test_equal_scores_keep_their_order():
    assert ranked(np.array([1.0, 3, 2, 3, 3])).tolist() == [1, 3, 4, 2, 0]
    assert ranked(np.array([[1.0, 3, 2], [5, 4, 5]]), 2).tolist() == [[1, 2], [0, 2]]
