"""The packed model against a padded, masked, float64 restatement of SPEC 4 to 8, on random weights and batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from reserve.checkpoint.official import load_official
from reserve.checkpoint.official_layout import parameter_entries
from reserve.config import DataConfig, ModelConfig
from reserve.model.merlot_reserve import MerlotReserve
from reserve.tasks.pretrain.batch import PretrainBatch, pack_batch
from reserve.tasks.pretrain.objective import pretrain_loss, pretrain_pairs
from tests.helpers.plain_model import Outputs, PlainModel
from tests.helpers.random_batches import VOCABULARY, RandomBatch, random_batch, random_weights
from tests.helpers.tiny import tiny

# Both sides are float64 and differ in the order of their sums.
BOUND = 1e-9

SMALL = tiny(vocab_size=VOCABULARY, joint_num_layers=2)
CASES = {
    # name: (examples, data, model)
    "one group": (1, DataConfig(num_segments=2, num_segment_groups=1, lang_seq_len=31, seq_len=47, text_span_budget=3,
                                num_text_spans_to_include=4), SMALL),
    "two groups, two heads, tall images": (
        2,
        DataConfig(num_segments=4, lang_seq_len=37, seq_len=71, text_span_budget=5, num_text_spans_to_include=9),
        ModelConfig(**{**vars(SMALL), "hidden_size": 128, "output_grid": (6, 2)}),
    ),
    "groups of three, half masked, other audio shape": (
        2,
        DataConfig(num_segments=6, lang_seq_len=41, seq_len=101, mask_rate=0.5, text_span_budget=4,
                   num_text_spans_to_include=22),
        ModelConfig(**{**vars(SMALL), "audio_seq_length": 30, "audio_token_length": 5, "audio_patch_size": 3,
                       "text_span_length": 7}),
    ),
    "three examples, one token streams cut, larger pooling": (
        3,
        DataConfig(num_segments=2, lang_seq_len=11, seq_len=13, text_span_budget=2, num_text_spans_to_include=3),
        ModelConfig(**{**vars(SMALL), "vit_pooling_ratio": 3, "output_grid": (3, 9), "span_num_layers": 2}),
    ),
    "textbook rotation": (
        1,
        DataConfig(num_segments=4, lang_seq_len=40, seq_len=60, text_span_budget=4, num_text_spans_to_include=6),
        ModelConfig(**{**vars(SMALL), "rotary": "standard"}),
    ),
}  # fmt: skip


@dataclass
class Case:
    raw: RandomBatch
    model: MerlotReserve
    plain: PlainModel
    batch: PretrainBatch
    truth: Outputs


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    examples, data, config = CASES[request.param]
    rng = np.random.default_rng(len(request.param))
    weights = random_weights(config, rng)
    raw = random_batch(examples, data, config, rng)
    model = load_official(weights, config).double()
    plain = PlainModel({k: torch.from_numpy(v).double().requires_grad_() for k, v in weights.items()}, config, data)
    return Case(
        raw=raw,
        model=model,
        plain=plain,
        batch=pack_batch(raw.images, raw.clips, raw.texts, raw.choices, data, config),
        truth=plain.pretrain(raw.images, raw.clips, raw.texts, raw.choices, tail=5),
    )


def assert_close(ours: torch.Tensor, truth: torch.Tensor) -> None:
    assert ours.dtype == truth.dtype == torch.float64
    assert ours.shape == truth.shape
    error = torch.linalg.vector_norm(ours - truth) / torch.linalg.vector_norm(truth)
    assert error <= BOUND, f"relative error {error:.2e}"


@torch.no_grad()
def test_vision_encoder(case: Case) -> None:
    ours = case.model.vision_encoder(case.raw.images.flatten(0, 1))
    cls, pooled = case.plain.vision(case.raw.images.flatten(0, 1))
    assert_close(ours.cls, cls)
    assert_close(ours.pooled, pooled)


@torch.no_grad()
def test_audio_encoder(case: Case) -> None:
    ours = case.model.audio_encoder(case.raw.clips.flatten(0, 1))
    cls, pooled = case.plain.audio(case.raw.clips.flatten(0, 1))
    assert_close(ours.cls, cls)
    assert_close(ours.pooled, pooled)


@torch.no_grad()
def test_span_encoder_with_empty_spans(case: Case) -> None:
    ours = case.model.encode_spans(case.batch.spans)
    assert_close(ours, case.truth.vectors["stuff_to_span/y"])


@torch.no_grad()
def test_joint_predictions_at_every_valid_token(case: Case) -> None:
    model, batch = case.model, case.batch
    frames = model.vision_encoder(batch.images.flatten(0, 1)).pooled
    sounds = model.audio_encoder(batch.audio_clips.flatten(0, 1)).pooled
    predictions = model.head(model.encode_joint(batch.joint, frames, sounds))
    for name, rows in batch.joint.rows.items():
        truth = case.truth.joint[name]
        valid = torch.from_numpy(rows >= 0)
        assert valid.any()
        assert_close(predictions[rows[valid]], truth[valid])


@torch.no_grad()
def test_contrast_vectors(case: Case) -> None:
    pairs = pretrain_pairs(case.model, case.batch)
    ours = {
        f"{name}/{part}": vectors
        for name, problem in pairs._asdict().items()
        for part, vectors in problem._asdict().items()
        if vectors is not None
    }
    assert ours.keys() == case.truth.vectors.keys()
    for name, vectors in ours.items():
        assert_close(vectors, case.truth.vectors[name])


def test_losses(case: Case) -> None:
    loss = pretrain_loss(
        pretrain_pairs(case.model, case.batch), case.model.contrastive_scales, case.batch.targets.span_source
    )
    assert loss.parts.keys() == case.truth.losses.keys()
    for name, value in loss.parts.items():
        assert_close(value, case.truth.losses[name])
    for name, value in loss.by_source.items():
        torch.testing.assert_close(value, case.truth.by_source[name], rtol=BOUND, atol=BOUND)
    assert_close(loss.total, sum(case.truth.losses.values()))


def test_gradient_of_every_parameter(case: Case) -> None:
    case.model.zero_grad()
    loss = pretrain_loss(
        pretrain_pairs(case.model, case.batch), case.model.contrastive_scales, case.batch.targets.span_source
    )
    loss.total.backward()
    weights = case.plain.weights
    truth = torch.autograd.grad(sum(case.truth.losses.values()), list(weights.values()), retain_graph=True)
    parameters = dict(case.model.named_parameters())
    entries = {entry.flax: entry for entry in parameter_entries(case.model.config)}
    largest = max(float(torch.linalg.vector_norm(t)) for t in truth)
    for name, expected in zip(weights, truth, strict=True):
        gradient = parameters[entries[name].torch].grad
        ours = (gradient.T if entries[name].kernel else gradient).reshape(expected.shape)
        # Some are zero up to rounding, which scales with the largest gradient.
        error = torch.linalg.vector_norm(ours - expected)
        assert error <= BOUND * torch.linalg.vector_norm(expected) + 1e-14 * largest, name


def test_clamped_scale_gets_no_gradient(case: Case) -> None:
    case.model.zero_grad()
    pairs = pretrain_pairs(case.model, case.batch)
    pretrain_loss(pairs, case.model.contrastive_scales, case.batch.targets.span_source).total.backward()
    gradient = case.model.contrastive_scales.grad
    assert gradient[1] == 0
    assert (gradient[[0, 2]] != 0).all()


def test_cases_reach_what_the_golden_batch_does_not() -> None:
    """Invalid kept spans, missing targets, PAD between words, and groups of several videos all occur."""
    seen = set()
    for name, (examples, data, config) in CASES.items():
        rng = np.random.default_rng(len(name))
        random_weights(config, rng)
        raw = random_batch(examples, data, config, rng)
        batch = pack_batch(raw.images, raw.clips, raw.texts, raw.choices, data, config)
        matching = np.concatenate([text.audio_text_matching.ids for text in raw.texts])
        sources = raw.choices.text2audio_source.reshape(-1, data.segments_per_group)
        occurs = {
            "LTOVPOOL missing": (batch.targets.pool_rows < 0).any(),
            "MASKAUDIO missing": (batch.targets.audio_rows < 0).any(),
            "span without its MASK": (batch.targets.span_rows < 0).any(),
            "empty span": any((text.text_spans == 0).all(1).any() for text in raw.texts),
            "several videos": (sources != sources[:, :1]).any(),
            "PAD inside": ((matching[:, :-1] == 0) & (matching[:, 1:] != 0)).any(),
        }
        seen |= {what for what, occurred in occurs.items() if occurred}
        every_condition = set(occurs)
    assert seen == every_condition
