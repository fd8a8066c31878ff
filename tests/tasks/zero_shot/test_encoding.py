from __future__ import annotations

import numpy as np
import pytest
import torch

from reserve.batch.video_tokens import video_tokens
from reserve.batch.vocabulary import AUDIOSPAN, MASK
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.zero_shot import encoding
from reserve.tasks.zero_shot.encoding import JointQuestion, encode_frames, encode_masks, encode_sounds
from tests.helpers.tiny import tiny
from tests.parity.zero_shot_golden import LISTS


def test_all_questions_of_a_call_give_what_each_gives_alone(golden, monkeypatch):
    """Videos of several lengths in one batch, with shared frames and sounds."""
    monkeypatch.setattr(encoding, "SEQUENCES_AT_ONCE", 4)
    monkeypatch.setattr(encoding, "IMAGES_AT_ONCE", 5)
    monkeypatch.setattr(encoding, "CLIPS_AT_ONCE", 2)
    images, clips, questions = [], [], []
    for name in LISTS:
        own_images, own_clips, question = golden.inputs(name)
        sounds = np.where(question.sounds < 0, -1, question.sounds + len(clips))
        questions.append(JointQuestion(question.tokens, question.frames + len(images), sounds))
        images += list(own_images)
        clips += list(own_clips)
    frames = encode_frames(golden.model, np.stack(images))
    found = encode_masks(golden.model, frames, encode_sounds(golden.model, np.stack(clips)), [*questions, questions[0]])
    for name, vectors in zip((*LISTS, LISTS[0]), found, strict=True):
        np.testing.assert_allclose(vectors.numpy(), golden.arrays[f"{name}/out_h"], atol=2e-6)


@pytest.fixture(scope="module")
def model() -> MerlotReserve:
    torch.manual_seed(0)
    return MerlotReserve(tiny()).eval()


def question(model, texts, sounds):
    tokens = video_tokens(texts, length=40, audio_tokens=model.config.audio_token_length)
    return JointQuestion(tokens, np.arange(len(texts)), np.array(sounds))


def test_questions_without_sound_need_no_audio_encoder(model, monkeypatch):
    monkeypatch.setattr(model.audio_encoder, "forward", None)
    images = np.random.default_rng(0).random((2, *model.config.image_size, 3), dtype=np.float32)
    frames = encode_frames(model, images)
    (found,) = encode_masks(model, frames, None, [question(model, [[11], [12, MASK, 13, MASK]], [-1, -1])])
    assert found.shape == (2, 64)
    assert found.dtype == torch.float32


def test_a_question_whose_mask_was_cut_off_has_no_vector(model):
    frames = encode_frames(model, np.zeros((1, *model.config.image_size, 3), np.float32))
    (found,) = encode_masks(model, frames, None, [question(model, [[11] * 40 + [MASK]], [-1])])
    assert found.shape == (0, 64)


def test_audiospan_in_a_text_is_an_error(model):
    frames = encode_frames(model, np.zeros((1, *model.config.image_size, 3), np.float32))
    with pytest.raises(ValueError, match="AUDIOSPAN in a segment without sound"):
        encode_masks(model, frames, None, [question(model, [[AUDIOSPAN, MASK]], [-1])])
