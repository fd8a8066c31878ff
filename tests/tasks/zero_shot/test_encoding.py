from __future__ import annotations

import numpy as np
import pytest
import torch

from reserve.batch.video_tokens import video_tokens
from reserve.batch.vocabulary import AUDIOSPAN, MASK, PAD
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.zero_shot import encoding
from reserve.tasks.zero_shot.encoding import JointQuestion, encode_frames, encode_masks, encode_sounds
from reserve.tasks.zero_shot.readout import encode_options, option_logits
from tests.helpers.tiny import tiny
from tests.tasks.zero_shot.golden import LISTS


@pytest.mark.parametrize("name", LISTS)
def test_vectors_and_logits_are_the_references(golden, name):
    images, clips, question = golden.inputs(name)
    sounds = encode_sounds(golden.model, clips) if len(clips) else None
    (found,) = encode_masks(golden.model, encode_frames(golden.model, images), sounds, [question])
    np.testing.assert_allclose(found.numpy(), golden.arrays[f"{name}/out_h"], atol=2e-6)
    logits = option_logits(found, encode_options(golden.model, golden.arrays["options"])).numpy()
    expected = golden.arrays[f"{name}/logits"]
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()
    assert (logits.argmax(1) == expected.argmax(1)).all()


@pytest.mark.parametrize("name", LISTS)
def test_embed_video_gives_the_references_vectors_of_every_token(golden, name):
    images, clips, question = golden.inputs(name)
    whole = np.zeros((len(images), 3, 60, 65), np.float32)
    whole[question.sounds >= 0] = clips
    ids, subsegments = question.tokens
    with torch.inference_mode():
        vectors = golden.model.embed_video(images[None], whole.reshape(1, -1, 60, 65), ids[None], subsegments[None])
    np.testing.assert_allclose(vectors[0][torch.from_numpy(ids != PAD)], golden.arrays[f"{name}/encoded"], atol=3e-6)


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
