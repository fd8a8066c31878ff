"""Held-out evaluation: every pair of a data set is ranked and identified."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from reserve.batch.vocabulary import MASKAUDIO, PAD
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.pretrain import evaluation as module
from reserve.tasks.pretrain.evaluation import evaluate
from reserve.tasks.pretrain.objective import ContrastPairs, PretrainPairs
from reserve.tasks.pretrain.ranking import Ranking, rank
from tests.helpers.small_stores import DATA, MODEL


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return MerlotReserve(MODEL)


def content_pairs(_model, batch) -> PretrainPairs:
    """Vectors that encode their content, and predictions that equal their targets."""
    frames = frame_content(batch.images.flatten(0, 1))
    sounds = sound_content(batch.audio_clips.flatten(0, 1))
    lengths = batch.spans.cu_seqlens.diff().tolist()
    spans = torch.stack([span_content(ids[1:].numpy()) for ids in batch.spans.token_ids.split(lengths)])
    at = batch.targets
    targets = sounds[at.audio_index]
    return PretrainPairs(
        ContrastPairs(frames, frames),
        ContrastPairs(targets, targets, sounds[at.audio_extra]),
        ContrastPairs(spans, spans),
    )


def frame_content(images: torch.Tensor) -> torch.Tensor:
    return images[:, :28, :32].double().mean((1, 2)) - 128


def sound_content(clips: torch.Tensor) -> torch.Tensor:
    angle = 2 * math.pi * (clips[:, 0, 0] + clips[:, 0, 1] / 200).double() / 30
    return torch.stack((angle.cos(), angle.sin()), 1)


def span_content(ids: np.ndarray) -> torch.Tensor:
    seed = [int(token) for token in ids if token != PAD]
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(16))


def places_content(dataset, ranking: Ranking) -> torch.Tensor:
    """The content of the data set at the places of a ranking's candidates."""
    rows = []
    for example, place in ranking.places.tolist():
        item = dataset[0, example]
        if ranking.name == "imgs_to_audio":
            rows.append(frame_content(torch.from_numpy(item.images[place])[None])[0])
        elif ranking.name == "text_to_audio":
            rows.append(sound_content(torch.from_numpy(item.audio_clips[place])[None])[0])
        else:
            rows.append(span_content(item.text.text_spans[place]))
    return torch.stack(rows).float()


def test_planted_answers_are_all_found_and_every_candidate_is_at_its_place(dataset, model, monkeypatch):
    """Candidate c is the content of the data set at places[c], so that a page can show it."""
    seen = {}

    def recording_rank(name, x, y, truth, places):
        seen[name] = y
        return rank(name, x.double(), y.double(), truth, places)

    monkeypatch.setattr(module, "pretrain_pairs", content_pairs)
    monkeypatch.setattr(module, "rank", recording_rank)
    evaluation = evaluate(model, dataset, step=7, batch_size=4)
    assert (evaluation.step, evaluation.examples) == (7, 6)
    counts = [(r.name, len(r.truth), r.candidates) for r in evaluation.rankings]
    assert counts[:2] == [("imgs_to_audio", 24, 24), ("text_to_audio", 18, 72)]
    assert counts[2][1] == counts[2][2] > 6 * 8
    for ranking in evaluation.rankings:
        candidates = seen[ranking.name]
        torch.testing.assert_close(candidates, places_content(dataset, ranking))
        assert not ranking.above.any()
        # The random text repeats a few spans of the transcripts verbatim: those tie.
        assert ranking.recall(1) == 1 or ranking.name == "stuff_to_span"
        assert torch.equal(candidates[ranking.guesses[:, 0]], candidates[ranking.truth])


def test_queries_are_the_masked_things_and_nothing_else(dataset, model):
    frames, sounds, spans = evaluate(model, dataset).rankings
    assert frames.places[frames.truth].tolist() == [[e, s] for e in range(6) for s in range(DATA.num_segments)]
    masked, spoken = [], []
    for example in range(len(dataset)):
        text = dataset[0, example].text
        stream = text.text2audio
        masked += [[example, int(place)] for place in np.unique(stream.audio_ptr[stream.ids == MASKAUDIO])]
        spoken += [[example, int(span)] for span in np.flatnonzero((text.text_spans != PAD).any(1))]
    assert sounds.places[sounds.truth].tolist() == masked
    assert spans.places[spans.truth].tolist() == spoken


def test_batch_size_does_not_matter(dataset, model):
    whole, parts = (evaluate(model, dataset, batch_size=size) for size in (6, 4))
    for one, other in zip(whole.rankings, parts.rankings, strict=True):
        np.testing.assert_array_equal(one.places, other.places)
        np.testing.assert_array_equal(one.truth, other.truth)
        np.testing.assert_allclose(one.true_score, other.true_score, atol=1e-5)
        np.testing.assert_allclose(one.guess_scores, other.guess_scores, atol=1e-5)


def test_a_mask_that_was_cut_off_is_a_candidate_but_no_query(dataset, model, monkeypatch):
    batches = module.evaluation_batches

    def cut(*arguments):
        for batch in batches(*arguments):
            batch.targets.audio_rows[0] = -1
            yield batch

    monkeypatch.setattr(module, "evaluation_batches", cut)
    sounds = evaluate(model, dataset, batch_size=6).rankings[1]
    assert (len(sounds.truth), sounds.candidates) == (17, 72)


def test_more_maskings_ask_for_more_sounds(dataset, model):
    once, often = evaluate(model, dataset), evaluate(model, dataset, maskings=3)
    first, pooled = (evaluation.rankings[1] for evaluation in (once, often))
    np.testing.assert_array_equal(first.truth, pooled.truth)
    assert pooled.queries > first.queries == len(first.truth)
    asked = {tuple(place) for one in (pooled, *pooled.further) for place in one.places[one.truth]}
    assert len(asked) > len(first.truth)


def test_no_masking_is_refused(dataset, model):
    with pytest.raises(ValueError, match="maskings must be at least 1; got 0"):
        evaluate(model, dataset, maskings=0)
