"""The two passes of a batch of questions. tests/parity compares them with the reference's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reserve.batch.vocabulary import AUDIOSPAN, MASK
from reserve.tasks.tvqa.batch import answer_probabilities, answer_scores, collate
from reserve.tasks.tvqa.sequences import audio_sequences, text_sequences
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


def test_a_long_option_is_cut_before_its_mask():
    option = list(range(10, 40))

    sequences = audio_sequences([option], 16)
    roomy = text_sequences([option], [[50, 51], [], [52]], 33)

    assert sequences.ids[0].tolist() == [*option[:15], MASK]
    assert roomy.ids[0].tolist() == [*option, MASK, 50, 51]
    assert roomy.segments[0].tolist() == [0] * 31 + [1, 1]


def test_sounds_of_all_segments_follow_an_option():
    sequences = audio_sequences([[10], [11, 12]], 130)

    assert (sequences.ids == AUDIOSPAN).sum(1).tolist() == [126, 126]
    assert sequences.segments[0].tolist() == [0, 0] + [s for s in range(1, 8) for _ in range(18)] + [0, 0]
