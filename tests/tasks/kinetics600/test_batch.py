"""Sequences of clips with and without sound."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reserve.batch.vocabulary import AUDIOSPAN, MASK
from reserve.model.finetuned import FinetunedReserve
from reserve.tasks.kinetics600.batch import Example, _stream, class_scores, collate
from tests.helpers.kinetics_folder import SIZES


def example(seed, *, views=1, sound=True, label=0):
    rng = np.random.default_rng(seed)
    images = rng.random((views, 2, *SIZES.image_size, 3), dtype=np.float32)
    clips = rng.normal(1, 1, (views, 2, 3, 60, 65)).astype(np.float32) if sound else None
    return Example(images, clips, label)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return FinetunedReserve(SIZES).eval()


def test_a_view_is_its_sound_and_a_mask():
    stream = _stream([example(0, views=2), example(1, views=2, sound=False)], 2, 2, 6)

    for row in (0, 1):
        assert stream.ids[row].tolist() == [AUDIOSPAN] * 36 + [MASK]
        assert stream.audio_ptr[row].tolist() == [n // 6 for n in range(36)] + [-1]
        assert stream.segment[row].tolist() == [0] * 18 + [1] * 18 + [1]
    for row in (2, 3):
        assert stream.ids[row].tolist() == [MASK] + [0] * 36
        assert stream.segment[row, 0] == 1
    assert stream.images.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert stream.example[:2].tolist() == [0, 1]


@torch.no_grad()
def test_clips_do_not_see_each_other(model):
    examples = [example(0), example(1, sound=False), example(2), example(3)]

    together = class_scores(model, collate(examples, SIZES))
    alone = [class_scores(model, collate([each], SIZES)) for each in examples]

    assert together.shape == (4, 1, SIZES.outputs)
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_views_are_scored_apart(model):
    both = example(0, views=2)
    single = [Example(both.images[[view]], both.audio_clips[[view]], 0) for view in range(2)]

    scores = class_scores(model, collate([both], SIZES))

    for view, each in enumerate(single):
        torch.testing.assert_close(scores[0, view], class_scores(model, collate([each], SIZES))[0, 0])


@torch.no_grad()
def test_sound_is_heard(model):
    heard, other = example(0), example(0)
    other.audio_clips = other.audio_clips + 1

    scores = [class_scores(model, collate([each], SIZES)) for each in (heard, other)]

    assert (scores[0] - scores[1]).abs().max() > 1e-4


@torch.no_grad()
def test_the_audio_encoder_is_not_run_without_sound(model, monkeypatch):
    def never(_clips):
        raise AssertionError("the audio encoder ran")

    monkeypatch.setattr(model.audio_encoder, "forward", never)
    batch = collate([example(0, sound=False), example(1, sound=False)], SIZES)

    assert batch.audio_clips is None
    assert class_scores(model, batch).isfinite().all()
    with pytest.raises(AssertionError, match="the audio encoder ran"):
        class_scores(model, collate([example(0), example(1, sound=False)], SIZES))
