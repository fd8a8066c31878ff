"""The two passes of a batch of questions: sequences, logits, losses and gradients, against the reference's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reserve.checkpoint.official import load_official
from reserve.checkpoint.official_layout import parameter_entries
from reserve.config import FinetunedConfig
from reserve.tasks.tvqa.batch import Example, answer_loss, answer_probabilities, answer_scores, collate
from reserve.tasks.tvqa.sequences import audio_sequences, text_sequences

SIZES = FinetunedConfig(
    hidden_size=128,
    vocab_size=2048,
    vit_num_layers=2,
    output_grid=(4, 6),
    audio_num_layers=1,
    joint_num_layers=2,
)
# Shifts that are the same for every answer, or scores of attention: zero up to rounding.
ZERO_GRADIENTS = ("joint_transformer/final_ln/bias", "seq_attnpool/key/bias")


@pytest.fixture(scope="module")
def golden(shared_dir):
    with np.load(shared_dir / "golden" / "tvqa.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def model(shared_dir):
    return load_official(shared_dir / "golden" / "tvqa.ckpt.msgpack", SIZES)


def examples(golden, count=2):
    made = []
    for index in range(count):
        parts = {k.rpartition("/")[2]: v.tolist() for k, v in golden.items() if k.startswith(f"parts/{index}/")}
        options = [[*parts["query"], *golden["sep"].tolist(), *parts[f"choice_{i}"]] for i in range(5)]
        patches = golden["images"][index].reshape(7, *SIZES.output_grid, 16, 16, 3)
        made.append(
            Example(
                images=patches.transpose(0, 1, 3, 2, 4, 5).reshape(7, *SIZES.image_size, 3),
                audio_clips=golden["audio_clips"][index],
                audio=audio_sequences(options, 160),
                text=text_sequences(options, [parts[f"sub_{i}"] for i in range(7)], 160),
                label=int(golden["labels"][index]),
            )
        )
    return made


def test_sequences_are_the_references(golden):
    for index, example in enumerate(examples(golden)):
        for name, sequences in [("audio_seqs", example.audio), ("textonly_seqs", example.text)]:
            expected = golden[name][index]
            np.testing.assert_array_equal(sequences.ids, expected[..., 0])
            np.testing.assert_array_equal(sequences.segments, expected[..., 1])


@torch.no_grad()
def test_logits_and_losses_are_the_references(golden, model):
    batch = collate(examples(golden), SIZES)

    scores = answer_scores(model, batch)
    loss = answer_loss(scores, batch.labels)

    metrics = {name: value.item() for name, value in loss.metrics().items()}
    for pass_scores, name in zip(scores, ("audio", "text"), strict=True):
        expected = golden[f"logits_{name}"]
        assert np.abs(pass_scores.numpy() - expected).max() < 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(pass_scores.log_softmax(-1), golden[f"logprobs_{name}"], atol=1e-5)
        assert metrics[f"loss_{name}"] == pytest.approx(float(golden[f"loss_{name}"]), rel=1e-5)
        assert metrics[f"accuracy_{name}"] == float(golden[f"is_right_{name}"])
    for name, probabilities in answer_probabilities(scores).items():
        np.testing.assert_array_equal(probabilities.argmax(-1), golden[f"preds_{name}"])
    assert loss.mean.item() == pytest.approx(float(golden["loss"]), rel=1e-5)


def test_gradients_are_the_references(golden, model):
    batch = collate(examples(golden), SIZES)
    model.zero_grad()
    answer_loss(answer_scores(model, batch), batch.labels).mean.backward()

    parameters = dict(model.named_parameters())
    compared = 0
    for entry in parameter_entries(model.config):
        expected = golden.get(f"grads/{entry.flax}")
        if expected is None or entry.flax.endswith(ZERO_GRADIENTS):
            continue
        gradient = parameters[entry.torch].grad
        if "cls_proj" in entry.flax:  # nothing reads the encodings of whole frames and sounds
            assert gradient is None
            assert not expected.any()
        else:
            ours = entry.to_flax(gradient)
            ours = ours[golden["token_rows"]] if entry.flax.startswith("token_encoder") else ours
            assert np.linalg.norm(ours - expected) < 1e-4 * np.linalg.norm(expected), entry.flax
        compared += 1
    # All that were recorded but the bias that shifts every answer alike.
    assert compared == sum(name.startswith("grads/") for name in golden) - 1


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
