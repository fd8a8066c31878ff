"""Random weights in the official layout, and random batches that use everything SPEC 7 allows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from reserve.batch.streams import TokenStream
from reserve.batch.vocabulary import AUDIOSPAN, LTOVPOOL, MASK, MASKAUDIO, PAD, START
from reserve.checkpoint.official_layout import parameter_entries
from reserve.config import DataConfig, ModelConfig
from reserve.tasks.pretrain.batch import BatchChoices
from reserve.tasks.pretrain.text import MaskedText

VOCABULARY = 50


def random_weights(config: ModelConfig, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """float32 arrays by flax name, large enough that attention is far from uniform and every bias matters."""
    weights = {}
    for entry in parameter_entries(config):
        noise = rng.standard_normal(entry.shape)
        if entry.flax.endswith("/scale"):
            value = 1 + 0.3 * noise
        elif entry.flax.endswith("/bias"):
            value = 0.2 * noise
        elif entry.flax == "contrastive_scales":
            value = np.array([1.3, 5.0, 0.4])  # the second is beyond ln 100
        elif entry.kernel:
            fan_in = entry.shape[0] if len(entry.shape) == 2 or "qkv" in entry.flax else entry.shape[0] * entry.shape[1]
            value = noise * (2 if "qkv" in entry.flax else 1) / np.sqrt(fan_in)
        else:
            value = noise
        weights[entry.flax] = value.astype(np.float32)
    return weights


@dataclass
class RandomBatch:
    images: torch.Tensor
    clips: torch.Tensor
    texts: list[MaskedText]
    choices: BatchChoices


def random_batch(examples: int, data: DataConfig, model: ModelConfig, rng: np.random.Generator) -> RandomBatch:
    """float64 images and clips, token streams with holes and missing targets, groups of several videos."""
    grouped = (examples, data.num_segment_groups, data.segments_per_group)
    total = examples * data.num_text_spans
    return RandomBatch(
        images=torch.from_numpy(rng.random((examples, data.num_segments, *model.image_size, 3))),
        clips=torch.from_numpy(rng.standard_normal((examples, data.num_subsegments, model.audio_seq_length, 65))),
        texts=[_masked_text(data, model, rng) for _ in range(examples)],
        choices=BatchChoices(
            text2audio_source=rng.integers(0, 3, grouped),
            audio2text_source=rng.integers(0, 3, grouped),
            kept_spans=rng.permutation(total)[: examples * data.num_text_spans_to_include],
        ),
    )


Token = tuple[int, int, int]


def _masked_text(data: DataConfig, model: ModelConfig, rng: np.random.Generator) -> MaskedText:
    masked = data.num_masked_subsegments
    targets = rng.permutation(data.num_subsegments)[: 2 * masked]
    spans = np.zeros((data.num_text_spans, model.text_span_length), np.int32)
    for span in spans:
        length = rng.integers(0, model.text_span_length + 1)
        span[:length] = rng.integers(10, VOCABULARY, length)
    spans[-1] = PAD
    text2audio, audio2text = np.sort(targets[:masked]).tolist(), np.sort(targets[masked:]).tolist()
    return MaskedText(
        text2audio=_groups(data, rng, lambda i: _text2audio(i, text2audio, rng)),
        audio2text=_groups(data, rng, lambda i: _audio2text(i, audio2text, masked, model, rng)),
        audio_text_matching=_padded([_matching(data, model, rng)], data.seq_len, rng),
        random_text=_padded([_random_text(data, 2 * masked, rng)], data.seq_len, rng),
        text_spans=spans,
    )


def _words(rng: np.random.Generator, pointer: int) -> list[Token]:
    return [(int(rng.integers(10, VOCABULARY)), pointer, -1) for _ in range(rng.integers(0, 3))]


def _groups(data: DataConfig, rng: np.random.Generator, tokens_of) -> TokenStream:
    per_group = data.num_subsegments // data.num_segment_groups
    rows = [
        [token for i in range(g * per_group, (g + 1) * per_group) for token in tokens_of(i)]
        for g in range(data.num_segment_groups)
    ]
    return _padded(rows, data.lang_seq_len, rng)


def _text2audio(i: int, targets: list[int], rng: np.random.Generator) -> list[Token]:
    if i not in targets:
        return _words(rng, i)
    span = targets.index(i)
    # Either is sometimes missing.
    return [t for t in ((MASK, i, span), (MASKAUDIO, i, span)) if rng.random() < 0.8]


def _audio2text(i: int, targets: list[int], first: int, model: ModelConfig, rng: np.random.Generator) -> list[Token]:
    if i in targets:
        return [(MASK, i, first + targets.index(i))]
    return _words(rng, i) if rng.random() < 0.3 else [(AUDIOSPAN, i, -1)] * model.audio_token_length


def _matching(data: DataConfig, model: ModelConfig, rng: np.random.Generator) -> list[Token]:
    tokens: list[Token] = [(START, -1, -1), *_words(rng, -1)]
    show_audio = rng.random() < 0.5
    for s in range(data.num_segments - int(rng.random() < 0.5)):
        tokens.append((LTOVPOOL, 3 * s, -1))
        for i in range(data.num_audio_subsegments * s, data.num_audio_subsegments * (s + 1)):
            tokens += [(AUDIOSPAN, i, -1)] * model.audio_token_length if show_audio else _words(rng, 3 * s)
    return tokens


def _random_text(data: DataConfig, first: int, rng: np.random.Generator) -> list[Token]:
    tokens = []
    for i in range(data.text_span_budget):
        tokens += _words(rng, i)
        if rng.random() < 0.8:
            tokens.append((MASK, i, first + i))
    return tokens


def _padded(rows: list[list[Token]], length: int, rng: np.random.Generator) -> TokenStream:
    """Rows cut or padded to `length`, with a few words replaced by PAD."""
    full = np.full((len(rows), length, 3), (PAD, -1, -1), np.int32)
    for i, row in enumerate(rows):
        kept = [(PAD, -1, -1) if t[0] >= 10 and rng.random() < 0.1 else t for t in row[:length]]
        full[i, : len(kept)] = np.array(kept, np.int32).reshape(-1, 3)
    return TokenStream(*np.moveaxis(full, -1, 0))
