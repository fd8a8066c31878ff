"""Which of all held-out spans of the same length is hidden, from words and frames: a question for every arm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.learning.mask_lm import MaskLmReserve
from benchmarks.learning.token_masks import expand_masks
from reserve.batch.packing import PackedSequences, pack_joint
from reserve.batch.streams import JointStream, TokenStream
from reserve.batch.vocabulary import MASK, PAD
from reserve.config import DataConfig, ModelConfig
from reserve.data.collection import PartSet
from reserve.data.prepare import recorded_stores
from reserve.data.tokenizer import Tokenizer
from reserve.model.merlot_reserve import MerlotReserve, unit_normalize
from reserve.tasks.pretrain.batch import stack_streams
from reserve.tasks.pretrain.dataset import PretrainDataset
from reserve.tasks.pretrain.objective import predictions
from reserve.tasks.pretrain.text import MaskedText

MASKINGS = 4
"""Independent maskings of each held-out example."""
LEAST_CANDIDATES = 10
"""Spans of a length that has fewer candidates are not asked for."""
STREAM = "text2audio"
AT_ONCE = 8
"""Examples of a forward pass."""


@dataclass(frozen=True)
class Queries:
    """Hidden spans of held-out videos. `masking`, `example`, `span` int [n] say where each is, in this order;
    `length` int [n] is its number of tokens, `truth` int [n] its place among `candidates[length]`, int [*, length] the
    distinct spans of that length; `video` int [n] the held-out video it is from.
    """

    masking: np.ndarray
    example: np.ndarray
    span: np.ndarray
    length: np.ndarray
    truth: np.ndarray
    video: np.ndarray
    candidates: dict[int, np.ndarray]

    def __len__(self) -> int:
        return len(self.span)

    @property
    def chance(self) -> np.ndarray:
        """float [n]: the probability of guessing each."""
        return np.array([1 / len(self.candidates[length]) for length in self.length])


class HeldOutSpans:
    """Held-out examples, loaded and masked once, and the queries about them.

    Spans with the same tokens are one candidate, so guessing a twin of the hidden span is right.
    """

    def __init__(self, prepared: Path, data: DataConfig, model: ModelConfig, maskings: int = MASKINGS) -> None:
        sets = [PartSet.of_stores(recorded_stores(prepared))]
        dataset = PretrainDataset(sets, Tokenizer.load(None), None, data, model, training=False)
        self.data, self.model = data, model
        examples = [[dataset[masking, index] for index in range(len(dataset))] for masking in range(maskings)]
        self.images = torch.from_numpy(np.stack([example.images for example in examples[0]]))
        self.sources = np.stack([example.text2audio_source for example in examples[0]])
        self.texts = [[example.text for example in masked] for masked in examples]
        self.videos = np.array([[video for video, _ in dataset.plans[i][1].segments] for i in range(len(dataset))])
        self.queries = self._queries()

    def _queries(self) -> Queries:
        found = []
        for masking, texts in enumerate(self.texts):
            for index, text in enumerate(texts):
                stream = text.text2audio
                asked = (stream.ids == MASK) & (stream.text_ptr >= 0)
                order = np.argsort(stream.text_ptr[asked])
                for span, subsegment in zip(stream.text_ptr[asked][order], stream.audio_ptr[asked][order], strict=True):
                    tokens = tuple(int(token) for token in text.text_spans[span] if token != PAD)
                    video = self.videos[index, subsegment // self.data.num_audio_subsegments]
                    if tokens:
                        found.append((masking, index, int(span), int(video), tokens))
        distinct = sorted({tokens for *_, tokens in found})
        by_length = {n: [tokens for tokens in distinct if len(tokens) == n] for n in {len(t) for t in distinct}}
        by_length = {n: spans for n, spans in by_length.items() if len(spans) >= LEAST_CANDIDATES}
        place = {tokens: index for spans in by_length.values() for index, tokens in enumerate(spans)}
        kept = [one for one in found if one[-1] in place]
        columns = np.array([one[:4] for one in kept], dtype=np.int64).reshape(-1, 4).T
        return Queries(
            masking=columns[0],
            example=columns[1],
            span=columns[2],
            length=np.array([len(one[-1]) for one in kept], dtype=np.int64),
            truth=np.array([place[one[-1]] for one in kept], dtype=np.int64),
            video=columns[3],
            candidates={n: np.array(spans, dtype=np.int64) for n, spans in by_length.items()},
        )

    @torch.no_grad()
    def hits(self, model: MerlotReserve) -> np.ndarray:
        """float [queries]: 1 where the hidden span has the best score, a share of 1 where it ties with others, else 0.

        The score is the cosine of the prediction and the span, and the sum of the log-probabilities of the span's
        tokens for a model that predicts tokens. The model is put in evaluation mode.
        """
        model.eval()
        queries, by_token = self.queries, isinstance(model, MaskLmReserve)
        frames = [model.vision_encoder(part.flatten(0, 1)).pooled for part in self.images.split(AT_ONCE)]
        vectors = {} if by_token else {n: model.embed_text_spans(spans) for n, spans in queries.candidates.items()}
        hits = np.zeros(len(queries))
        for masking, texts in enumerate(self.texts):
            for first, pooled in zip(range(0, len(texts), AT_ONCE), frames, strict=True):
                part = slice(first, first + AT_ONCE)
                shown = [expand_masks(text) for text in texts[part]] if by_token else texts[part]
                packed, rows = self._packed(shown, self.sources[part])
                joint = model.encode_joint(packed, pooled, pooled.new_empty(0, *pooled.shape[1:]))
                here = (queries.masking == masking) & (queries.example // AT_ONCE == first // AT_ONCE)
                for length, candidates in queries.candidates.items():
                    own = np.flatnonzero(here & (queries.length == length))
                    if not len(own):
                        continue
                    places = queries.span[own, None]
                    if by_token:
                        places = places * self.model.text_span_length + np.arange(length)
                    at = torch.from_numpy(rows[queries.example[own, None] - first, places].ravel())
                    x = predictions(model, joint, at)
                    if isinstance(model, MaskLmReserve):
                        scores = span_log_probabilities(model.token_logits(x).view(len(own), length, -1), candidates)
                    else:
                        scores = unit_normalize(x) @ vectors[length].T
                    hits[own] = best_is(scores, torch.from_numpy(queries.truth[own]))
        return hits

    def _packed(self, texts: list[MaskedText], sources: np.ndarray) -> tuple[PackedSequences, np.ndarray]:
        """The packed stream of some examples, and the row of each text pointer's MASK, int [examples, pointers]."""
        stream: TokenStream = stack_streams(texts, STREAM)
        examples, groups, length = stream.ids.shape
        pointers = stream.audio_ptr.reshape(-1, length)
        segments = self.data.segments_per_group
        packed = pack_joint(
            [
                JointStream(
                    name=STREAM,
                    ids=stream.ids.reshape(-1, length),
                    audio_ptr=pointers,
                    segment=pointers // self.data.num_audio_subsegments % segments,
                    example=np.repeat(np.arange(examples), groups),
                    images=np.arange(examples * self.data.num_segments).reshape(-1, segments),
                    source=sources.reshape(-1, segments),
                    with_audio=False,
                )
            ],
            subsegments=self.data.num_subsegments,
            audio_tokens=self.model.audio_token_length,
            pooled_grid=self.model.pooled_grid,
        )
        example, group, position = np.nonzero((stream.ids == MASK) & (stream.text_ptr >= 0))
        rows = np.full((examples, len(texts[0].text_spans)), -1)
        at = packed.rows[STREAM].reshape(stream.ids.shape)[example, group, position]
        rows[example, stream.text_ptr[example, group, position]] = at
        return packed, rows


def span_log_probabilities(logits: torch.Tensor, candidates: np.ndarray) -> torch.Tensor:
    """Scores [queries, candidates] from logits [queries, length, vocabulary] and token ids int [candidates, length]."""
    log_probabilities = F.log_softmax(logits.float(), -1)
    places = torch.from_numpy(candidates)
    return log_probabilities[:, torch.arange(places.shape[1]), places].sum(-1)


def best_is(scores: torch.Tensor, truth: torch.Tensor) -> np.ndarray:
    """float [queries]: 1 where candidate `truth` [queries] has the best of scores [queries, candidates], 1 / k where k
    candidates have it, else 0. NaN is the lowest score."""
    scores = scores.float().masked_fill(scores.isnan(), -torch.inf)
    true_score = scores.gather(1, truth[:, None])
    above, level = (scores > true_score).sum(1), (scores == true_score).sum(1)
    return torch.where(above == 0, 1 / level, 0.0).numpy()
