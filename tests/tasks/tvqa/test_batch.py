"""The two passes of a batch of questions. tests/parity compares them with the reference's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reserve.tasks.tvqa.batch import answer_probabilities, answer_scores, collate
from tests.parity.tvqa_measures import SIZES, examples, load_model


@pytest.fixture(scope="module")
def golden(shared_dir):
    with np.load(shared_dir / "golden" / "tvqa.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def model(shared_dir):
    return load_model(shared_dir / "golden")


def test_joint_predictions_are_the_references(shared_dir):
    with np.load(shared_dir / "golden" / "tvqa_prep.npz") as golden:
        scores = torch.from_numpy(np.stack([golden["joint/logits_audio"], golden["joint/logits_text"]]))
        expected = golden["joint/preds"]

    np.testing.assert_array_equal(answer_probabilities(scores)["joint"].argmax(-1), expected)


def test_a_question_does_not_see_the_others(golden, model):
    with torch.no_grad():
        both = answer_scores(model, collate(examples(golden), SIZES))
        alone = [answer_scores(model, collate([example], SIZES)) for example in examples(golden)]

    torch.testing.assert_close(both, torch.cat(alone, dim=1), rtol=1e-5, atol=1e-5)
