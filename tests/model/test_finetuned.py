from __future__ import annotations

import logging
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from reserve.batch.inputs import ModelInputs
from reserve.batch.packing import pack_joint
from reserve.batch.streams import JointStream
from reserve.batch.vocabulary import MASK
from reserve.config import FinetunedConfig
from reserve.errors import CheckpointError
from reserve.model.finetuned import FinetunedReserve
from reserve.model.initialization import undrawn
from reserve.model.merlot_reserve import MerlotReserve
from tests.helpers.tiny import tiny

SIZES = tiny()
CONFIG = FinetunedConfig(**asdict(SIZES))


def inputs(sequences=2):
    ids = np.tile(np.array([11, 12, MASK]), (sequences, 1))
    example = np.arange(sequences)
    stream = JointStream("x", ids, 0 * ids, 0 * ids, example, example[:, None])
    joint = pack_joint([stream], subsegments=1, audio_tokens=6, pooled_grid=SIZES.pooled_grid)
    images = torch.rand(sequences, *SIZES.image_size, 3)
    return ModelInputs(images, None, joint, None), torch.from_numpy(joint.rows["x"][:, -1])


@pytest.mark.parametrize("with_audio", [True, False])
def test_it_has_the_parts_that_its_task_needs(with_audio):
    model = FinetunedReserve(replace(CONFIG, with_audio=with_audio, outputs=7))
    parts = {name.partition(".")[0] for name, _ in model.named_parameters()}
    whole = {name.partition(".")[0] for name, _ in MerlotReserve(SIZES).named_parameters()}
    dropped = {"span_encoder", "head"} | (set() if with_audio else {"audio_encoder"})
    assert parts == whole - dropped | {"proj"}
    assert model.proj.weight.shape == (7, 64)


def test_scores_are_the_head_on_the_joint_output():
    model = FinetunedReserve(replace(CONFIG, outputs=3))
    batch, rows = inputs()
    with torch.no_grad():
        scores = model.scores(batch, rows)
        expected = model(batch).joint[rows] @ model.proj.weight.T
    assert scores.shape == (2, 3)
    torch.testing.assert_close(scores, expected)


def test_scores_are_float32_under_autocast():
    model = FinetunedReserve(CONFIG)
    batch, rows = inputs()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert model.scores(batch, rows).dtype == torch.float32


def test_the_head_starts_small_and_also_in_an_undrawn_model():
    config = replace(CONFIG, outputs=200)
    with undrawn():
        loaded = FinetunedReserve(config)
    for model in (FinetunedReserve(config), loaded):
        assert model.proj.weight.std().item() == pytest.approx(0.01, rel=0.05)


def test_it_is_saved_and_loaded(tmp_path):
    model = FinetunedReserve(replace(CONFIG, with_audio=False))
    model.save_pretrained(tmp_path)
    again = FinetunedReserve.from_pretrained(tmp_path)
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_it_starts_from_a_pretrained_folder(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    pretrained = MerlotReserve(SIZES)
    pretrained.save_pretrained(tmp_path)
    model = FinetunedReserve(replace(CONFIG, with_audio=False))
    head = model.proj.weight.clone()
    model.load_trunk(tmp_path)
    state = pretrained.state_dict()
    assert all(torch.equal(p, state[name]) for name, p in model.named_parameters() if name != "proj.weight")
    assert torch.equal(model.proj.weight, head)
    assert "lacks 1 weights of FinetunedReserve, which keep their initial values: proj.weight" in caplog.text
    assert "that FinetunedReserve does not use" in caplog.text


def test_a_head_of_another_shape_is_not_loaded(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    scorer = FinetunedReserve(CONFIG)
    scorer.save_pretrained(tmp_path)
    classifier = FinetunedReserve(replace(CONFIG, outputs=5))
    head = classifier.proj.weight.clone()
    classifier.load_trunk(tmp_path)
    assert torch.equal(classifier.proj.weight, head)
    assert torch.equal(classifier.token_embedding.weight, scorer.token_embedding.weight)
    assert "proj.weight" in caplog.text
    same = FinetunedReserve(CONFIG)
    same.load_trunk(tmp_path)
    assert torch.equal(same.proj.weight, scorer.proj.weight)


def test_a_trunk_of_another_size_is_an_error(tmp_path):
    MerlotReserve(tiny(vocab_size=30)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"token_embedding.weight is \(30, 64\), not \(20, 64\)"):
        FinetunedReserve(CONFIG).load_trunk(tmp_path)


def test_a_trunk_without_a_needed_part_is_an_error(tmp_path):
    FinetunedReserve(replace(CONFIG, with_audio=False)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"missing: audio_encoder"):
        FinetunedReserve(CONFIG).load_trunk(tmp_path)


def test_what_it_cannot_do_is_said():
    model = FinetunedReserve(CONFIG)
    with pytest.raises(TypeError, match="has no span encoder"):
        model.embed_text_spans(torch.ones(1, 3, dtype=torch.long))
    with pytest.raises(TypeError, match="has no pretraining head"):
        model.embed_video(None, None, None, None)


def test_outputs_must_be_positive():
    with pytest.raises(ValueError, match=r"model.outputs must be at least 1; got 0"):
        replace(CONFIG, outputs=0)
