"""The arms are trained on the same targets, and differ in what they should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from benchmarks.learning.arms import ARMS, AUDIO_OFF, CONTRASTIVE, MASK_LM
from reserve.batch.vocabulary import AUDIOSPAN, MASK, MASKAUDIO, PAD
from reserve.config import TrainConfig
from reserve.data.store import load_texts
from reserve.data.tokenizer import Tokenizer
from reserve.tasks.pretrain.objective import pretrain_pairs
from tests.helpers.small_stores import DATA, MODEL

TRAIN = TrainConfig(batch_size=3, num_workers=0)


def batches(prepared, name, data=DATA):
    """The task of an arm, its first examples, and their batch."""
    task = ARMS[name](data=data, model=MODEL, prepared=prepared)
    dataset = task.training_set(prepared, TRAIN)
    examples = [dataset[0, index] for index in range(TRAIN.batch_size)]
    return task, examples, task.collate(examples)


def kept_spans(task, examples):
    """The tokens of the spans that a task predicts, one tuple a span, sorted."""
    batch = ARMS[CONTRASTIVE](data=task.data, model=task.model).collate(examples)
    spans = np.concatenate([example.text.text_spans for example in examples])[batch.targets.span_index]
    found = [tuple(span[span != PAD].tolist()) for span in spans[batch.targets.span_source.numpy() >= 0]]
    return sorted(span for span in found if span)


def test_mask_lm_predicts_the_tokens_of_the_same_spans(prepared):
    task, examples, batch = batches(prepared, MASK_LM)
    tokens = sorted(token for span in kept_spans(task, examples) for token in span)
    assert sorted(batch.token_ids.tolist()) == tokens
    spans = np.stack([example.text.text_spans for example in examples])
    assert batch.token_ids.tolist() == spans.ravel()[batch.targets.span_index].tolist()  # each at its own MASK
    assert batch.spans is None
    assert (batch.targets.span_rows >= 0).all()
    assert (batch.joint.text_ids[batch.joint.text_ids == MASK]).numel() >= len(tokens)


def test_the_bias_of_mask_lm_starts_at_the_frequencies_of_the_training_words(prepared, stores):
    bias = ARMS[MASK_LM](data=DATA, model=MODEL, prepared=prepared).build_model().token_bias
    counts = np.bincount([token for store in stores for text in load_texts(store)
                          for token in Tokenizer.load(None).encode_plain(text)], minlength=len(bias))  # fmt: skip
    assert bias.exp().sum().item() == pytest.approx(1, rel=1e-4)
    common, rare = counts.argsort()[[-1, -2]]
    assert counts[common] >= counts[rare] > 0
    difference = np.log((counts[common] + 0.05) / (counts[rare] + 0.05))
    assert (bias[common] - bias[rare]).item() == pytest.approx(difference, abs=1e-5)


def test_the_streams_of_audio_off_hide_the_spans_that_they_predict(prepared):
    _, examples, _ = batches(prepared, AUDIO_OFF)
    for example in examples:
        shown = []
        for stream in (example.text.text2audio, example.text.audio2text):
            words = []
            for token, pointer in zip(stream.ids.ravel(), stream.text_ptr.ravel(), strict=True):
                if token == MASK:
                    words += [one for one in example.text.text_spans[pointer].tolist() if one != PAD]
                elif token not in (PAD, MASKAUDIO):
                    words.append(int(token))
            shown.append(words)
        assert shown[0] == shown[1]  # with the hidden spans in their places both say the same
        assert len(shown[0]) > 10


def test_the_loss_of_mask_lm_is_that_of_each_token_at_its_mask(prepared):
    task, _, batch = batches(prepared, MASK_LM)
    torch.manual_seed(0)
    model = task.build_model()
    torch.nn.init.normal_(model.token_bias)
    x = pretrain_pairs(model, batch).stuff_to_span.x
    logits = x @ model.token_embedding.weight.T + model.token_bias
    loss = task.loss(model, batch, None)
    assert loss.metrics["mask_lm"].item() == pytest.approx(F.cross_entropy(logits, batch.token_ids).item(), rel=1e-5)
    parts = ("imgs_to_audio", "text_to_audio", "mask_lm")
    assert loss.total.item() == pytest.approx(sum(loss.metrics[part].item() for part in parts), rel=1e-5)
    loss.total.backward()
    assert model.token_bias.grad.abs().sum() > 0


def test_frames_and_sounds_are_matched_as_in_pretraining(prepared):
    """With no span masked the inputs are the same, and so are the other two losses."""
    data = replace(DATA, text_span_budget=0, num_text_spans_to_include=1)
    losses = {}
    for name in (CONTRASTIVE, MASK_LM):
        task, examples, _ = batches(prepared, name, data)
        for example in examples:
            for stream in (example.text.text2audio, example.text.audio2text):
                stream.ids[stream.ids == MASK] = 50
                stream.text_ptr[:] = -1
        example.text.text2audio.ids[0, 0], example.text.text2audio.text_ptr[0, 0] = MASK, 0
        example.text.text_spans[0] = [60, *[PAD] * (MODEL.text_span_length - 1)]
        torch.manual_seed(0)
        losses[name] = task.loss(task.build_model(), task.collate(examples), None).metrics
    for problem in ("imgs_to_audio", "text_to_audio"):
        assert losses[MASK_LM][problem].item() == pytest.approx(losses[CONTRASTIVE][problem].item(), rel=1e-5)


def test_without_audio_nothing_is_heard_and_the_same_targets_are_masked(prepared):
    _, with_audio, _ = batches(prepared, CONTRASTIVE)
    task, examples, batch = batches(prepared, AUDIO_OFF)
    assert batch.audio_clips is None
    assert not batch.joint.audio_index.numel()
    for ours, theirs in zip(examples, with_audio, strict=True):
        assert (theirs.text.audio2text.ids == AUDIOSPAN).any()
        assert not (ours.text.audio2text.ids == AUDIOSPAN).any()
        assert np.array_equal(ours.text.text2audio.ids, theirs.text.text2audio.ids)

        def masked(text):
            stream = text.audio2text
            at = (stream.ids == MASK) & (stream.text_ptr >= 0)
            return sorted(zip(stream.audio_ptr[at].tolist(), stream.text_ptr[at].tolist(), strict=True))

        assert masked(ours.text) == masked(theirs.text)
    loss = task.loss(task.build_model(), batch, None)
    assert loss.metrics.keys() == {"loss", "imgs_to_audio", "stuff_to_span"}
    loss.total.backward()


@pytest.mark.parametrize("name", ARMS)
def test_micro_batches_join(prepared, name):
    task, examples, _ = batches(prepared, name)
    torch.manual_seed(0)
    model = task.build_model()
    parts = [task.vectors(model, task.collate([example])) for example in examples]
    assert task.vectors_loss(parts, None).total.isfinite()
    assert task.workload(task.collate(examples)).flops > 0
