from __future__ import annotations

import numpy as np
import pytest
import torch

import reserve
from reserve.batch.vocabulary import AUDIOSPAN, MASK, PAD
from reserve.tasks.search.encoding import Window, encode_windows, masked_tokens
from tests.tasks.search.small_index import write_video
from tests.tasks.zero_shot.small_sets import small_model


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    """Windows of 3 and 2 segments, with sound, and of 3 without."""
    folder = tmp_path_factory.mktemp("videos")
    video = reserve.open_video(write_video(folder / "video.mp4", 25.0, 1))
    size = small_model().config.image_size
    found = []
    for start, stop, heard in ((0, 15, True), (15, 25, True), (5, 20, False)):
        spans = video.segments(start=start, stop=stop)
        found.append(Window(video.images(spans, size), video.clips(spans) if heard else None))
    return found


def written_out(segments: int, masked: int, heard: bool) -> tuple[list[int], list[int]]:
    """The tokens and their subsegments, one list entry a token."""
    ids, own = [], []
    for segment in range(segments):
        for part in range(3):
            if part == masked:
                ids += [MASK]
                own += [3 * segment + part]
            elif heard:
                ids += [AUDIOSPAN] * 6
                own += [3 * segment + part] * 6
    return ids, own


def test_vectors_are_those_of_embed_video_on_sequences_written_out(model, windows):
    found = encode_windows(model, windows)
    for window, vectors in zip(windows, found, strict=True):
        count, heard = len(window.images), window.clips is not None
        clips = window.clips.reshape(1, -1, *window.clips.shape[2:]) if heard else None
        for masked in range(3):
            ids, own = (np.array([column]) for column in written_out(count, masked, heard))
            with torch.inference_mode():
                expected = model.embed_video(window.images[None], clips, ids, own)[0].numpy()[ids[0] == MASK]
            np.testing.assert_allclose(vectors.words[:, masked], expected, atol=2e-6)
        if heard:
            with torch.inference_mode():
                np.testing.assert_allclose(vectors.sounds, model.embed_audio(window.clips).numpy(), atol=2e-6)
        else:
            assert vectors.sounds is None


def test_frames_and_sounds_are_encoded_once(model, windows, monkeypatch):
    seen = []
    for name in ("vision_encoder", "audio_encoder"):
        encoder = getattr(model, name)
        forward = encoder.forward
        monkeypatch.setattr(encoder, "forward", lambda x, f=forward, n=name: seen.append((n, len(x))) or f(x))
    encode_windows(model, windows)
    assert sorted(seen) == [("audio_encoder", 3 * 5), ("vision_encoder", 3 + 2 + 3)]


@pytest.mark.parametrize("heard", [True, False])
@pytest.mark.parametrize("masked", [0, 1, 2])
def test_a_mask_stands_in_place_of_its_subsegment(masked, heard):
    tokens = masked_tokens(2, masked, heard=heard)
    ids, own = written_out(2, masked, heard)
    assert tokens.ids[: len(ids)].tolist() == ids
    assert tokens.subsegments[: len(own)].tolist() == own
    assert set(tokens.ids[len(ids) :]) == {PAD}
    assert set(tokens.subsegments[len(ids) :]) == {-1}
    full = masked_tokens(8, masked, heard=True)
    assert (full.ids != PAD).all(), "eight segments fill the sequence"
