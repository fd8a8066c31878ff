"""Ranking and its figures, against brute force and planted answers."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from reserve import evaluate as module
from reserve.batch.vocabulary import MASKAUDIO, PAD
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.pretrain.evaluation import evaluate
from reserve.tasks.pretrain.objective import ContrastPairs, PretrainPairs
from reserve.tasks.pretrain.ranking import Evaluation, Ranking, rank
from tests.helpers.small_stores import DATA, MODEL, make_dataset, make_stores


def ranking(above, tied=None, candidates=None) -> Ranking:
    """One query for each of the first candidates, of which there are as many as queries or more."""
    above = np.asarray(above)
    n = len(above)
    candidates = max(n, 10) if candidates is None else candidates
    tied = np.zeros(n, int) if tied is None else np.asarray(tied)
    nothing = np.zeros((n, 5))
    places = np.stack([np.arange(candidates), np.zeros(candidates, int)], 1)
    return Ranking("problem", places, np.arange(n), np.zeros(n), above, tied, nothing.astype(int), nothing)


def ranked(x, y, truth) -> Ranking:
    return rank("problem", x, y, torch.as_tensor(truth), np.zeros((len(y), 2), int))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_recall_is_the_share_of_orders_of_the_tied_that_put_the_true_one_among_the_best(k):
    """Against every place that the true candidate can take among those that score the same."""
    rng = np.random.default_rng(k)
    above, tied = rng.integers(0, 6, 50), rng.integers(0, 4, 50)
    expected = np.mean([np.mean([a + before < k for before in range(t + 1)]) for a, t in zip(above, tied, strict=True)])
    assert ranking(above, tied).recall(k) == pytest.approx(expected)


def test_ranks_and_guesses_are_those_of_a_plain_sort():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 8)), rng.standard_normal((30, 8))
    y[5] = y[6] = y[7]
    truth = rng.integers(0, 30, 40)
    got = ranked(torch.tensor(x), torch.tensor(y), truth)

    def unit(v):
        return v / np.sqrt((v**2).sum(-1, keepdims=True) + 1e-5)

    scores = unit(x) @ unit(y).T
    for i, target in enumerate(truth):
        others = np.delete(scores[i], target)
        same = np.isclose(others, scores[i, target], rtol=0, atol=1e-12)
        assert got.above[i] == ((others > scores[i, target]) & ~same).sum()
        assert got.tied[i] == same.sum()
        np.testing.assert_allclose(got.guess_scores[i], np.sort(scores[i])[::-1][:5], atol=1e-12)
        np.testing.assert_allclose(scores[i, got.guesses[i]], got.guess_scores[i], atol=1e-12)
        assert got.true_score[i] == pytest.approx(scores[i, target])


def test_many_queries_are_ranked_as_one_by_one(monkeypatch):
    x, y = torch.randn(23, 8), torch.randn(23, 8)
    whole = ranked(x, y, range(23))
    monkeypatch.setattr(module, "QUERIES_AT_ONCE", 5)
    parts = ranked(x, y, range(23))
    np.testing.assert_array_equal(whole.above, parts.above)
    np.testing.assert_array_equal(whole.guesses, parts.guesses)


@pytest.mark.parametrize(("hits", "n"), [(8, 10), (0, 20), (20, 20), (1, 3), (137, 720)])
def test_the_interval_is_wilsons(hits, n):
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    low, high = ranking([0] * hits + [3] * (n - hits)).interval(1)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_several_maskings_are_pooled_and_each_thing_counts_once_in_the_interval():
    both = ranking([0] * 10 + [9] * 10)
    both.further = [ranking([0] * 20, candidates=40)]
    assert both.queries == 40
    assert both.recall(1) == pytest.approx(30 / 40)
    assert both.chance(1) == pytest.approx((1 / 20 + 1 / 40) / 2)
    assert both.median_rank == 1
    expected = binomtest(15, 20).proportion_ci(method="wilson")
    assert both.interval(1) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize(
    ("above", "tied", "median"), [([0], [0], 1), ([0, 4, 9], None, 5), ([0, 1], None, 1.5), ([2], [3], 4.5)]
)
def test_the_median_rank_counts_from_one_with_ties_in_the_middle(above, tied, median):
    assert ranking(above, tied).median_rank == median


def test_chance_is_k_among_all_but_at_most_one():
    assert ranking([0], candidates=8).chance(1) == 1 / 8
    assert ranking([0], candidates=3).chance(5) == 1


@pytest.mark.parametrize(
    ("hits", "times", "beats"),
    [(60, 50, True), (60, 70, False), (2, 1, False)],
    ids=["clear", "too few times", "noise"],
)
def test_beating_chance_takes_the_times_and_the_interval(hits, times, beats):
    assert ranking([0] * hits + [5] * (100 - hits)).beats_chance(times) is beats


@pytest.mark.parametrize("value", [0.0, 1.0, math.nan], ids=["zeros", "one vector", "not numbers"])
def test_a_model_that_tells_nothing_apart_is_at_chance(value):
    """Not at 1, as it would be if only strictly better candidates counted against it."""
    y = torch.full((12, 4), value)
    got = ranked(y, y, range(12))
    assert got.recall(1) == pytest.approx(1 / 12)
    assert got.median_rank == 6.5
    assert not got.beats_chance(1.5)


def test_a_single_score_that_is_no_number_counts_as_the_worst():
    y = torch.eye(6)
    y[2, 0] = math.nan
    got = ranked(torch.eye(6), y, range(6))
    assert got.above.tolist() == [0, 0, 5, 0, 0, 0]


def test_without_queries_figures_are_no_numbers_and_json_null():
    empty = ranked(torch.zeros(0, 4), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert empty.candidates == 0
    assert all(math.isnan(value) for value in (empty.recall(1), *empty.interval(1), empty.chance(1), empty.median_rank))
    assert not empty.beats_chance(1)
    text = json.dumps(Evaluation(3, 1, [empty]).to_json(), allow_nan=False)
    figures = json.loads(text)["rankings"]["problem"]
    assert figures["recall@1"] is figures["recall@1 95% interval"] is figures["median rank"] is None
    assert "nan%" in str(Evaluation(3, 1, [empty]))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(make_stores(tmp_path_factory.mktemp("stores")), training=False)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return MerlotReserve(MODEL)


def content_pairs(_model, batch) -> PretrainPairs:
    """Vectors that say what they stand for, and predictions that are right."""
    frames = frame_content(batch.images.flatten(0, 1))
    sounds = sound_content(batch.audio_clips.flatten(0, 1))
    lengths = batch.spans.cu_seqlens.diff().tolist()
    spans = torch.stack([span_content(ids[1:].numpy()) for ids in batch.spans.token_ids.split(lengths)])
    at = batch.targets
    wanted = sounds[at.audio_index]
    return PretrainPairs(
        ContrastPairs(frames, frames),
        ContrastPairs(wanted, wanted, sounds[at.audio_extra]),
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
    """What the data set has at the places of a ranking's candidates."""
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
    """What is ranked as candidate c is what the data set has at places[c]: decoding a guess shows what was guessed."""
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
        # The random text repeats a few spans of the transcripts word for word: those tie.
        assert ranking.recall(1) == 1 or ranking.name == "stuff_to_span"
        assert torch.equal(candidates[ranking.guesses[:, 0]], candidates[ranking.truth])


def test_queries_are_the_masked_things_and_nothing_else(dataset, model):
    frames, sounds, spans = evaluate(model, dataset).rankings
    assert frames.places[frames.truth].tolist() == [[e, s] for e in range(6) for s in range(DATA.num_segments)]
    masked, said = [], []
    for example in range(len(dataset)):
        text = dataset[0, example].text
        stream = text.text2audio
        masked += [[example, int(place)] for place in np.unique(stream.audio_ptr[stream.ids == MASKAUDIO])]
        said += [[example, int(span)] for span in np.flatnonzero((text.text_spans != PAD).any(1))]
    assert sounds.places[sounds.truth].tolist() == masked
    assert spans.places[spans.truth].tolist() == said


def test_batch_boundaries_do_not_matter(dataset, model):
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
