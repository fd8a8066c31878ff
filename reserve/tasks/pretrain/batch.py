"""A pretraining batch: tensors, packed sequences, and the positions of the targets (SPEC 7, 8)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from reserve.batch.inputs import ModelInputs
from reserve.batch.movable import Movable
from reserve.batch.packing import pack_joint, pack_spans
from reserve.batch.streams import JointStream, TokenStream, pool_count
from reserve.batch.vocabulary import LTOVPOOL, MASK, MASKAUDIO, PAD
from reserve.config import DataConfig, ModelConfig
from reserve.tasks.pretrain.text import MaskedText

SPAN_SOURCES = ("text2audio", "audio2text", "random_text")
"""The streams in which text spans are masked, in the order of an example's spans."""

_VALID_BONUS = 1e6
_MULTIMODAL_BONUS = np.log(4.0)


@dataclass
class Targets(Movable):
    """Rows of the packed joint sequence that make predictions (-1 for none), and their targets. All int64.

    `pool_rows` [B S] predict the frames. `audio_rows` [B masked] predict the clips `audio_index` [B masked];
    `audio_extra` [B rest] are the other clips, both as indices over the B * 48 subsegments. `span_rows` [kept spans]
    predict the spans `span_index` (example * spans + span), which come from the streams `span_source`.
    """

    pool_rows: torch.Tensor
    audio_rows: torch.Tensor
    audio_index: torch.Tensor
    audio_extra: torch.Tensor
    span_rows: torch.Tensor
    span_index: torch.Tensor
    span_source: torch.Tensor


@dataclass
class PretrainBatch(ModelInputs):
    """Inputs with `images` [B, S, height, width, 3] and `audio_clips` [B, S * 3, 60, 65], and the targets."""

    targets: Targets


@dataclass
class BatchChoices:
    """The random choices of a batch beyond masking (SPEC 7, 8), kept apart so that tests can fix them.

    `text2audio_source`, `audio2text_source` int [B, G, segments in a group]: the video each segment counts as;
    `kept_spans` int [kept]: spans to predict, as example * spans + span.
    """

    text2audio_source: np.ndarray
    audio2text_source: np.ndarray
    kept_spans: np.ndarray


def split_sources(video_src_index: np.ndarray, rng: np.random.Generator, probability: float = 0.1) -> np.ndarray:
    """Splits each group of int [G, n] into two videos at a random inner boundary, with `probability` (SPEC 7)."""
    groups, n = video_src_index.shape
    if n == 1:
        return video_src_index
    cut = np.where(rng.random(groups) < probability, rng.integers(1, n, groups), n)
    return video_src_index + np.where(np.arange(n) >= cut[:, None], 4 * n, 0)


def stack_streams(texts: list[MaskedText], name: str) -> TokenStream:
    """One stream of all examples, as arrays [B, sequences, length]."""
    streams = [getattr(text, name) for text in texts]
    return TokenStream(*(np.stack([getattr(s, f) for s in streams]) for f in ("ids", "audio_ptr", "text_ptr")))


def pack_batch(
    images: torch.Tensor,
    audio_clips: torch.Tensor,
    texts: list[MaskedText],
    choices: BatchChoices,
    data: DataConfig,
    model: ModelConfig,
) -> PretrainBatch:
    """Packs B examples: images [B, S, h, w, 3], clips [B, S * 3, 60, 65], masked texts and the random choices.

    Raises ValueError if a stream's pointers are out of bounds or contradict each other.
    """
    streams = span_streams(texts) | {"audio_text_matching": stack_streams(texts, "audio_text_matching")}
    spans = np.stack([text.text_spans for text in texts])
    sources = {"text2audio": choices.text2audio_source, "audio2text": choices.audio2text_source}
    joint = pack_joint(
        [_joint_stream(name, stream, sources.get(name), data) for name, stream in streams.items()],
        subsegments=data.num_subsegments,
        audio_tokens=model.audio_token_length,
        pooled_grid=model.pooled_grid,
    )
    kept = choices.kept_spans
    return PretrainBatch(
        images=images,
        audio_clips=audio_clips,
        joint=joint,
        spans=pack_spans(spans.reshape(-1, spans.shape[-1])[kept]),
        targets=_targets(streams, spans.shape[1], joint.rows, kept, data),
    )


def _joint_stream(name: str, stream: TokenStream, source: np.ndarray | None, data: DataConfig) -> JointStream:
    examples, sequences, length = stream.ids.shape
    ids, pointers = stream.ids.reshape(-1, length), stream.audio_ptr.reshape(-1, length)
    images = None
    if source is not None:
        segment = (pointers // data.num_audio_subsegments) % data.segments_per_group
        images = np.arange(examples * data.num_segments).reshape(-1, data.segments_per_group)
        source = source.reshape(-1, data.segments_per_group)
    elif name == "audio_text_matching":
        segment = pool_count(ids)
    else:
        segment = np.zeros_like(ids)
    return JointStream(
        name=name,
        ids=ids,
        audio_ptr=pointers,
        segment=segment,
        example=np.repeat(np.arange(examples), sequences),
        images=images,
        source=source,
        with_audio=name in ("audio2text", "audio_text_matching"),
    )


def span_sources(streams: dict[str, TokenStream], num_spans: int) -> np.ndarray:
    """For each span the stream that masks it: int [B, spans], an index in SPAN_SOURCES, -1 for none."""
    examples = len(streams["text2audio"].ids)
    source = np.full((examples, num_spans), -1)
    for index, name in enumerate(SPAN_SOURCES):
        example, _, _, span = _masks(streams[name], MASK, streams[name].text_ptr)
        if ((span < 0) | (span >= num_spans)).any():
            raise ValueError(f"{name}: a MASK's text_ptr must be in [0, {num_spans}); got {span.min()} to {span.max()}")
        if len(np.unique(example * num_spans + span)) < len(span) or (source[example, span] >= 0).any():
            raise ValueError(f"{name}: two MASKs predict the same text span")
        source[example, span] = index
    return source


def span_streams(texts: list[MaskedText]) -> dict[str, TokenStream]:
    """The streams in which text spans are masked, of all examples: arrays [B, sequences, length]."""
    return {name: stack_streams(texts, name) for name in SPAN_SOURCES}


def keep_spans(
    streams: dict[str, TokenStream], spans: np.ndarray, noise: np.ndarray, num_kept: int | None
) -> np.ndarray:
    """Chooses the spans of the batch to predict (SPEC 8): `num_kept` per example on average over the batch.

    `spans` int [B, n, length]; `noise` [B, n] Gumbel noise. Returns int [B * num_kept], best first. If `num_kept` is
    None, returns every span that is not empty and has its MASK, in order.
    """
    source = span_sources(streams, spans.shape[1])
    valid = (spans != PAD).any(-1) & (source >= 0)
    if num_kept is None:
        return np.flatnonzero(valid)
    multimodal = (source == 0) | (source == 1)
    score = _VALID_BONUS * valid + _MULTIMODAL_BONUS * multimodal + noise
    return np.argsort(-score.ravel(), kind="stable")[: num_kept * len(spans)]


def _masks(stream: TokenStream, token: int, pointer: np.ndarray) -> tuple[np.ndarray, ...]:
    """(example, sequence, position, pointer) of every `token` in a stream."""
    where = np.nonzero(stream.ids == token)
    return *where, pointer[where]


def _targets(
    streams: dict[str, TokenStream], num_spans: int, rows: dict[str, np.ndarray], kept: np.ndarray, data: DataConfig
) -> Targets:
    examples = len(streams["text2audio"].ids)
    sources = span_sources(streams, num_spans)  # also checks the pointers, which are indices below
    packed = {name: rows[name].reshape(stream.ids.shape) for name, stream in streams.items()}

    matching = streams["audio_text_matching"]
    pool = np.full((examples, data.num_segments), -1)
    example, sequence, position, nth = _masks(matching, LTOVPOOL, pool_count(matching.ids) - 1)
    if nth.size and nth.max() >= data.num_segments:
        raise ValueError(f"audio_text_matching: at most {data.num_segments} LTOVPOOL per example; got {nth.max() + 1}")
    pool[example, nth] = packed["audio_text_matching"][example, sequence, position]

    audio = np.full((examples, data.num_subsegments), -1)
    example, sequence, position, subsegment = _masks(streams["text2audio"], MASKAUDIO, streams["text2audio"].audio_ptr)
    if ((subsegment < 0) | (subsegment >= data.num_subsegments)).any():
        raise ValueError(
            f"text2audio: a MASKAUDIO's audio_ptr must be in [0, {data.num_subsegments}); "
            f"got {subsegment.min()} to {subsegment.max()}"
        )
    audio[example, subsegment] = packed["text2audio"][example, sequence, position]
    # Masked subsegments first, both parts in order. A truncated MASKAUDIO leaves its place to a subsegment that has no
    # prediction.
    order = np.argsort(audio < 0, axis=1, kind="stable")
    over_batch = order + np.arange(examples)[:, None] * data.num_subsegments
    masked = data.num_masked_subsegments

    span = np.full((examples, num_spans), -1)
    for name in SPAN_SOURCES:
        example, sequence, position, index = _masks(streams[name], MASK, streams[name].text_ptr)
        span[example, index] = packed[name][example, sequence, position]
    return Targets(
        pool_rows=torch.from_numpy(pool.ravel()),
        audio_rows=torch.from_numpy(np.take_along_axis(audio, order, 1)[:, :masked].ravel()),
        audio_index=torch.from_numpy(over_batch[:, :masked].ravel()),
        audio_extra=torch.from_numpy(over_batch[:, masked:].ravel()),
        span_rows=torch.from_numpy(span.ravel()[kept]),
        span_index=torch.from_numpy(kept),
        span_source=torch.from_numpy(sources.ravel()[kept]),
    )
