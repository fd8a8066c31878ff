"""The question that all arms answer: which of all spans of the same length is hidden?"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.learning import spans
from benchmarks.learning.arms import ARMS, AUDIO_OFF, CONTRASTIVE, MASK_LM
from benchmarks.learning.spans import HeldOutSpans, best_is, span_log_probabilities
from reserve.batch.vocabulary import PAD
from reserve.tasks.pretrain.dataset import evaluation_batches
from reserve.tasks.pretrain.objective import predictions, pretrain_pairs
from tests.helpers.small_stores import DATA, MODEL, make_dataset


@pytest.fixture
def held_out(prepared, monkeypatch) -> HeldOutSpans:
    monkeypatch.setattr(spans, "LEAST_CANDIDATES", 2)
    monkeypatch.setattr(spans, "AT_ONCE", 3)  # several forward passes, the last one smaller
    return HeldOutSpans(prepared, DATA, MODEL, maskings=2)


def test_the_truth_is_the_hidden_span_among_distinct_ones_of_its_length(held_out):
    queries = held_out.queries
    assert len(queries) > 20
    for n, candidates in queries.candidates.items():
        assert len(np.unique(candidates, axis=0)) == len(candidates)
        assert candidates.shape[1] == n
    for query in range(len(queries)):
        text = held_out.texts[queries.masking[query]][queries.example[query]]
        hidden = text.text_spans[queries.span[query]]
        assert (
            queries.candidates[queries.length[query]][queries.truth[query]].tolist() == hidden[hidden != PAD].tolist()
        )
    assert (queries.chance == [1 / len(queries.candidates[n]) for n in queries.length]).all()


def test_every_query_has_a_video_that_says_it(held_out):
    """Words of a segment are its own, so a span tells the video that it is from."""
    queries = held_out.queries
    said = {}
    for query in range(len(queries)):
        tokens = tuple(queries.candidates[queries.length[query]][queries.truth[query]])
        assert said.setdefault(tokens, queries.video[query]) == queries.video[query]
    assert len(set(queries.video)) == 5


def test_an_arm_that_knows_the_spans_is_right(held_out, monkeypatch):
    """A model whose predictions are replaced by the hidden spans' own vectors."""
    model = ARMS[CONTRASTIVE](data=DATA, model=MODEL).build_model()
    queries = held_out.queries
    order = iter(_order(held_out))

    def hidden(model, joint, rows):
        own = [next(order) for _ in range(len(rows))]
        return torch.cat(
            [model.embed_text_spans(queries.candidates[queries.length[q]][queries.truth[q], None]) for q in own]
        )

    monkeypatch.setattr(spans, "predictions", hidden)
    assert held_out.hits(model).mean() == pytest.approx(1)


def test_predictions_are_those_of_a_pretraining_batch(held_out, prepared, stores, monkeypatch):
    torch.manual_seed(0)
    model = ARMS[CONTRASTIVE](data=DATA, model=MODEL).build_model().eval()
    found = []

    def recorded(*given):
        found.append(predictions(*given))
        return found[-1]

    monkeypatch.setattr(spans, "predictions", recorded)
    held_out.hits(model)
    ours = dict(zip(_order(held_out), torch.cat(found), strict=True))
    dataset = make_dataset(stores, training=False)
    (batch,) = evaluation_batches(dataset, len(dataset), epoch=1)
    with torch.no_grad():
        theirs = dict(zip(batch.targets.span_index.tolist(), pretrain_pairs(model, batch).stuff_to_span.x, strict=True))
    queries = held_out.queries
    own = np.flatnonzero(queries.masking == 1)
    assert len(own) > 10
    for query in own:
        place = queries.example[query] * DATA.num_text_spans + queries.span[query]
        torch.testing.assert_close(ours[query], theirs[int(place)], rtol=1e-3, atol=1e-5)


def _order(held_out):
    """Queries in the order in which predictions are asked for."""
    queries = held_out.queries
    for masking in range(len(held_out.texts)):
        for first in range(0, len(held_out.images), spans.AT_ONCE):
            here = (queries.masking == masking) & (queries.example // spans.AT_ONCE == first // spans.AT_ONCE)
            for length in queries.candidates:
                yield from np.flatnonzero(here & (queries.length == length))


@pytest.mark.parametrize("name", [CONTRASTIVE, MASK_LM, AUDIO_OFF])
def test_untrained_models_guess(held_out, prepared, name):
    torch.manual_seed(0)
    hits = held_out.hits(ARMS[name](data=DATA, model=MODEL, prepared=prepared).build_model())
    assert ((hits >= 0) & (hits <= 1)).all()
    assert hits.mean() < 5 * held_out.queries.chance.mean()


def test_mask_lm_chooses_the_span_of_the_likeliest_tokens(held_out, prepared):
    model = ARMS[MASK_LM](data=DATA, model=MODEL, prepared=prepared).build_model()
    query = 0
    queries = held_out.queries
    tokens = queries.candidates[queries.length[query]][queries.truth[query]]
    with torch.no_grad():
        model.token_bias[tokens] = 100.0
    assert held_out.hits(model)[query] == 1


def test_log_probabilities_are_summed_over_the_tokens():
    logits = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
    candidates = np.array([[0, 1, 2], [6, 6, 0]])
    scores = span_log_probabilities(logits, candidates)
    each = logits.log_softmax(-1)
    assert scores[1, 1].item() == pytest.approx((each[1, 0, 6] + each[1, 1, 6] + each[1, 2, 0]).item(), abs=1e-5)
    assert scores.shape == (2, 2)


def test_ties_share_a_hit_and_nan_is_never_best():
    scores = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 2.0], [torch.nan, 0.0, 0.0]])
    assert best_is(scores, torch.tensor([0, 2, 0])).tolist() == [0.5, 1.0, 0.0]


def test_mask_lm_scores_each_token_of_a_span_at_its_own_mask(prepared, monkeypatch):
    """A model that knows the token of each MASK finds every span; it would find few from MASKs in another order."""
    held_out = HeldOutSpans(prepared, DATA, MODEL)
    model = ARMS[MASK_LM](data=DATA, model=MODEL, prepared=prepared).build_model()
    token_at: dict[int, int] = {}
    packed = HeldOutSpans._packed

    def remembering(self, texts, sources):
        sequences, rows = packed(self, texts, sources)
        token_at.clear()
        for text, of_example in zip(texts, rows, strict=True):
            token_at.update({int(row): int(text.text_spans[p, 0]) for p, row in enumerate(of_example) if row >= 0})
        return sequences, rows

    def knowing(x):
        tokens = torch.tensor([token_at[int(row)] for row in x[:, 0]])
        return 10 * torch.nn.functional.one_hot(tokens, MODEL.vocab_size).float()

    monkeypatch.setattr(HeldOutSpans, "_packed", remembering)
    monkeypatch.setattr("benchmarks.learning.spans.predictions", lambda model, joint, rows: rows[:, None].float())
    monkeypatch.setattr(model, "token_logits", knowing)
    assert held_out.hits(model).mean() == 1
